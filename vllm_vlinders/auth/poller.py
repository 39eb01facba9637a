"""A thread that looks after something, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

_LONGEST_STOP_SECONDS = 10.0


class Poller:
    """Calls `action` every `seconds` in a daemon thread, and `last` at its end.

    Both tell their problems themselves: what they raise there is dropped, and ends nothing.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        action: Callable[[], None],
        last: Callable[[], None] = lambda: None,
    ) -> None:
        self._seconds, self._action, self._last = seconds, action, last
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after `seconds`."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for what is under way, though not for ever."""
        self._end.set()
        if self._thread.ident is None:
            self._last()
        elif self._thread.is_alive():
            self._thread.join(_LONGEST_STOP_SECONDS)

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            with suppress(Exception):
                self._action()
        with suppress(Exception):
            self._last()
