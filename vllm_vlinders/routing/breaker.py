"""The circuit breaker of a replica: after failures in a row it is left alone for a while."""

from __future__ import annotations

_MOST_DOUBLINGS = 5


class Breaker:
    """Closed at first; open after `failures` in a row, for `rest` seconds; then one request may try.

    If that one fails too, it rests twice as long, and so on, up to 32 times. What was under way when it
    opened, and fails later, says nothing new.
    """

    def __init__(self, failures: int, rest: float) -> None:
        self._most, self._rest = failures, rest
        self._failed = 0
        self._opened = 0
        self._until = 0.0
        self._trying = False

    def ready(self, now: float) -> bool:
        """Tell whether a request may be sent."""
        return not self._opened or (now >= self._until and not self._trying)

    def start(self) -> None:
        """Note that a request is sent, which was `ready`."""
        self._trying = bool(self._opened)

    def succeed(self) -> None:
        """Note that it was answered."""
        self._failed = self._opened = 0
        self._trying = False

    def fail(self, now: float) -> None:
        """Note that it was not."""
        self._failed += 1
        if self._failed >= self._most and (self._trying or not self._opened):
            self._until = now + self._rest * 2 ** min(self._opened, _MOST_DOUBLINGS)
            self._opened += 1
        self._trying = False

    def abandon(self) -> None:
        """Note that it was given up before it showed anything."""
        self._trying = False
