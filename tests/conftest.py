"""What all tests share: how hypothesis searches, and which stay together when two processes share the work."""

import signal
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples on each run, and no judgement of their speed: what fails here, fails everywhere.
# To look for new ones: pytest --hypothesis-profile=default
settings.register_profile(
    "vlinders", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vlinders")

# A shell starts what it puts in the background with SIGINT ignored, and processes of tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("proxy", "second_count", "traffic")
SHARED = {
    "test_data_parallel": "data_parallel",
    "test_data_parallel_metrics": "data_parallel",
    "test_sessions": "data_parallel",
    "test_patched_priority": "patched",
    "test_patched_requests": "patched",
    "test_stock_unchanged": "patched",
    "test_behind_nginx": "patched",
    "test_routing": "scheduled",
    "test_scheduled_logs": "scheduled",
    "test_scheduled_metrics": "scheduled",
    "test_scheduled_prometheus": "scheduled",
    "test_scheduled_traces": "scheduled",
    "test_scheduling": "scheduled",
    "test_upstream_not_vllm": "scheduled",
    "test_upstreams": "scheduled",
}
"""Files of integration tests, and the server that they share."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one process run all tests of a server, or of a file, where several share the work (``pytest -n 2``)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return SHARED.get(PurePosixPath(file).stem, file)

    return ByServer(config, log)
