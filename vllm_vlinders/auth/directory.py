"""The keys of the store in the memory of one process, kept in step with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from vllm_vlinders.auth.keys import KeyIndex, Pepper
from vllm_vlinders.auth.poller import Poller
from vllm_vlinders.auth.store import KeyStore
from vllm_vlinders.errors import StoreError

_NOTE_USES_SECONDS = 30.0
_SILENT_POLLS, _SILENT_SECONDS = 10, 10.0


class KeyDirectory:
    """Answers from memory; a thread takes over what changes in the store.

    A store that does not answer leaves all as it was: keys go on to count, revoked ones stay revoked.

    Args:
        store: where the keys are.
        pepper: makes their digests.
        poll_seconds: how often to look for changes.
        on_state: told whenever the store begins or ceases to answer: the problem, or None.

    Raises:
        StoreError: the store does not answer at the start.
    """

    def __init__(
        self,
        store: KeyStore,
        pepper: Pepper,
        poll_seconds: float,
        on_state: Callable[[str | None], None] = lambda _problem: None,
    ) -> None:
        self.store = store
        self.index = KeyIndex(pepper)
        self.problem: str | None = None
        self._pepper = pepper
        self._upto = 0
        self._noted, self._refreshed = time.time(), time.monotonic()
        self._silent_seconds = _SILENT_POLLS * poll_seconds + _SILENT_SECONDS
        self._on_state = on_state
        self._lock = threading.Lock()
        self._take_over()
        self._poller = Poller("vlinders-keys", poll_seconds, self.refresh, self._end)

    def start(self) -> None:
        """Begin to follow the store."""
        self._poller.start()

    def stop(self) -> None:
        """Cease to follow the store, and note the last uses; a store that says nothing is not waited for."""
        self._poller.stop()

    def refresh(self) -> None:
        """Take over what has changed; a problem is noted and changes nothing."""
        try:
            self._take_over()
            self._note_uses()
        except StoreError as error:
            self._set_problem(str(error))
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises, the last good state stays
            self._set_problem(f"the key store cannot be read: {type(error).__name__}")
        else:
            self._refreshed = time.monotonic()
            self._set_problem(None)

    def status(self) -> dict[str, Any]:
        """Return what operators want to know, JSON-serialisable."""
        ago = time.monotonic() - self._refreshed
        silence = f"the key store has not answered for {ago:.0f} seconds"
        return {
            "keys": len(self.index),
            "store": self.problem or (silence if ago > self._silent_seconds else "ok"),
            "last_read_seconds_ago": round(ago, 1),
        }

    def _take_over(self) -> None:
        """Put into the index what has changed; all there is after a problem, whatever it was."""
        with self._lock:
            upto, self._upto = self._upto, 0
            changes = self.store.changes(upto)
            index = self.index
            if changes.complete:
                index = KeyIndex(self._pepper)
                index.used = self.index.used
            for record in changes.records:
                index.put(record)
            self.index, self._upto = index, changes.upto

    def _note_uses(self) -> None:
        if time.time() - self._noted < _NOTE_USES_SECONDS:
            return
        uses = dict(self.index.used)
        self.store.touch(uses)
        self._noted = time.time()
        for key_id, at in uses.items():
            if self.index.used.get(key_id) == at:
                del self.index.used[key_id]

    def _end(self) -> None:
        self._noted = 0
        self.refresh()
        self.store.close()

    def _set_problem(self, problem: str | None) -> None:
        changed = (problem is None) != (self.problem is None)
        self.problem = problem
        if changed:
            self._on_state(problem)
