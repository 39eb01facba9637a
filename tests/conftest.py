"""What all tests share: how hypothesis searches."""

from hypothesis import HealthCheck, settings

# The same examples on each run, and no judgement of their speed: what fails here, fails everywhere.
# To look for new ones: pytest --hypothesis-profile=default
settings.register_profile(
    "vlinders", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vlinders")
