"""What all tests share: how hypothesis searches, and which stay together when two processes share the work."""

import pytest
from hypothesis import HealthCheck, settings

# The same examples on each run, and no judgement of their speed: what fails here, fails everywhere.
# To look for new ones: pytest --hypothesis-profile=default
settings.register_profile(
    "vlinders", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vlinders")

pytest.register_assert_rewrite("proxy", "second_count", "traffic")
SHARED_SERVERS = ("scheduled", "data_parallel", "patched", "release")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name groups for ``pytest -n 2 --dist loadgroup``: the tests of a shared server, else those of a file."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        server = next((name for name in SHARED_SERVERS if name in fixtures), None)
        item.add_marker(pytest.mark.xdist_group(server or item.path.name))
