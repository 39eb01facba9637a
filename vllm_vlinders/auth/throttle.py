"""Slowing those who try out credentials."""

from __future__ import annotations

from vllm_vlinders.settings import BruteForceSettings

_MINUTE = 60.0
_MOST_ADDRESSES = 10_000
_FIRST_DELAY = 0.1


class Throttle:
    """Counts the failures of each address in the last minute, and says how long to let one wait.

    Only failures wait: whoever shows a good credential from the same address, as behind a proxy, does not.
    """

    def __init__(self, settings: BruteForceSettings) -> None:
        self._settings = settings
        self._failures: dict[str, tuple[int, float]] = {}

    def fail(self, address: str, now: float) -> float:
        """Count a failure of `address` at `now`; return the seconds by which to delay the answer to it."""
        count, since = self._failures.pop(address, (0, now))
        if now - since >= _MINUTE:
            count, since = 0, now
        if len(self._failures) >= _MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures[address] = count + 1, since
        beyond = count + 1 - self._settings.free_failures
        if beyond <= 0:
            return 0.0
        return min(self._settings.max_delay_seconds, _FIRST_DELAY * 2.0 ** min(beyond - 1, 32))
