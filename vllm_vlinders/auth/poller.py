"""A thread that looks after something, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Poller:
    """Calls `action` every `seconds` in a daemon thread; `action` raises nothing."""

    def __init__(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._seconds, self._action = seconds, action
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after `seconds`."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for a call that is under way."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._action()
