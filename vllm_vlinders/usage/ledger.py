"""The ledger of one API server process: sums in memory, stored by a thread twice a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_vlinders.errors import StartupError, StoreError
from vllm_vlinders.usage.entry import Amounts, Key, Loss
from vllm_vlinders.usage.journal import Counted, Journal, leftovers

if TYPE_CHECKING:  # it brings SQLAlchemy
    from vllm_vlinders.usage.store import UsageStore

FLUSH_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
"""How long a store may take; after that it counts as one that does not answer."""
_NO_ANSWER = f"not answered for {PATIENCE_SECONDS:.0f} s"
_DAY_SECONDS = 86_400
_MOST_LINES = 100_000


class _Batch(NamedTuple):
    """What goes into the store at once.

    Attributes:
        rows: sums by key.
        dropped: what there was no room for.
        stored: all that the process will have accounted for with this batch.
    """

    rows: dict[Key, Amounts]
    dropped: Counted
    stored: Counted


class UsageLedger:
    """Never makes a request wait for the store, nor fails one.

    Args:
        open_store: opens the store; called by the thread, again and again while it fails.
        folder: where the journals are; None: what a killed process had not stored is not known.
        on_problem: is told of a problem once, and with None of its end.
        on_loss: is told how many requests have been lost.
        clock: returns the seconds since 1970.

    Raises:
        OSError: there is no writing there.
    """

    def __init__(
        self,
        open_store: Callable[[], UsageStore],
        folder: Path | None,
        on_problem: Callable[[str | None], None],
        on_loss: Callable[[int], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_store = open_store
        self._folder = folder
        self._on_problem = on_problem
        self._on_loss = on_loss
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._rows: dict[tuple[str, str, str], list[Any]] = {}
        self._dropped = self._stored = Counted()
        self._pending: _Batch | None = None
        self._day, self._day_ends = "", 0.0
        self._store: UsageStore | None = None
        self._journal = None if folder is None else Journal(folder)
        self._ending = threading.Event()
        self._failing = False
        self._asked = float("inf")
        self._thread = threading.Thread(target=self._run, name="vlinders-usage", daemon=True)

    def start(self) -> None:
        """Start the thread; what is left is stored at the end of the process."""
        self._thread.start()
        Finalize(self, UsageLedger.stop, args=(self,), exitpriority=10)

    def stop(self) -> None:
        """Store what is left, and close. Idempotent. A store that does not answer is not waited for long."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self.flush() and self._journal is not None and self._store is not None:
            self._journal.close()
            self._try(lambda store, name=self._journal.name: store.forget(name))  # type: ignore[misc]
        if not self._is_stuck():
            self._forget_store()

    def add(self, tenant: str, model: str, amounts: Amounts) -> None:
        """Count what a request used."""
        if self._journal is not None:
            self._journal.count(amounts.requests, amounts.tokens)
        now = self._clock()
        if now >= self._day_ends:
            self._turn(now)
        if self._is_stuck():
            self._complain(f"the store has {_NO_ANSWER}")
        with self._lock:
            row = self._rows.get((self._day, tenant, model))
            if row is None:
                if len(self._rows) >= _MOST_LINES:
                    self._dropped = _sum(self._dropped, Counted(amounts.requests, amounts.tokens))
                    return
                row = self._rows[self._day, tenant, model] = [0, 0, 0, 0, 0.0]
            row[0] += amounts.requests
            row[1] += amounts.prompt
            row[2] += amounts.cached
            row[3] += amounts.completion
            row[4] += amounts.cost

    def read(self, first: str, last: str, tenant: str | None) -> tuple[dict[Key, Amounts], Counted]:
        """Return what was used and what was lost in those days, by all processes.

        Raises:
            StoreError: the store does not answer.
        """
        if not self._is_stuck():
            self.flush()
        if self._is_stuck():
            raise StoreError(f"the usage ledger has {_NO_ANSWER}")
        kept = self._store
        store = kept or self._open_store()
        try:
            return store.read(first, last, tenant), store.lost(first, last)
        finally:
            if kept is None:
                store.close()

    def flush(self) -> bool:
        """Store what has been counted; return whether all of it is stored."""
        if not self._writing.acquire(timeout=PATIENCE_SECONDS):
            return False  # the store keeps another thread waiting
        try:
            if self._pending is not None and not self._store_batch(self._pending, again=True):
                return False
            self._pending = self._take()
            return self._pending is None or self._store_batch(self._pending)
        finally:
            self._writing.release()

    def _take(self) -> _Batch | None:
        """Return what has been counted since it was last taken; None if that is nothing."""
        with self._lock:
            taken, self._rows = self._rows, {}
            dropped, self._dropped = self._dropped, Counted()
        if not taken and dropped == Counted():
            return None
        rows = {Key(*key): Amounts(*row) for key, row in taken.items()}
        counted = Counted(
            sum(row.requests for row in rows.values()), sum(row.tokens for row in rows.values())
        )
        return _Batch(rows, dropped, _sum(_sum(self._stored, counted), dropped))

    def _store_batch(self, batch: _Batch, *, again: bool = False) -> bool:
        """Store a batch whole, or keep it to be stored `again`; return whether it is stored."""
        name = None if self._journal is None else self._journal.name
        loss = Loss(self._day, *batch.dropped)
        if not self._try(lambda store: store.add(batch.rows, name, batch.stored, loss, again=again)):
            return False
        self._stored, self._pending = batch.stored, None
        self._on_loss(batch.dropped.requests)
        return True

    def _run(self) -> None:
        known = self._know_losses()
        while not self._ending.wait(FLUSH_SECONDS):
            known = known or self._know_losses()
            self.flush()

    def _know_losses(self) -> bool:
        with self._writing:
            return self._try(self._count_losses)

    def _try(self, act: Callable[[UsageStore], None]) -> bool:
        """Do something with the store; return whether it could be done, and tell if that has changed."""
        self._asked = time.monotonic()
        try:
            if self._store is None:
                self._store = self._open_store()
            act(self._store)
        except (StartupError, OSError) as error:
            self._complain(str(error))
            self._forget_store()
            return False
        finally:
            self._asked = float("inf")
        if self._failing:
            self._failing = False
            self._on_problem(None)
        return True

    def _complain(self, problem: str) -> None:
        if not self._failing:
            self._failing = True
            self._on_problem(problem)

    def _forget_store(self) -> None:
        """Close the store, to open it anew the next time: its file may have gone, and its tables with it."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _is_stuck(self) -> bool:
        """Tell whether the store keeps whoever asked it waiting."""
        return time.monotonic() - self._asked > PATIENCE_SECONDS

    def _count_losses(self, store: UsageStore) -> None:
        """Count as lost what processes that were killed had not stored."""
        if self._folder is None:
            return
        found = []
        for leftover in leftovers(self._folder):
            self._turn(self._clock())
            lost = store.lose(leftover.name, leftover.counted, self._day)
            self._on_loss(lost.requests)
            found.append(leftover)
        for leftover in found:
            if not leftover.path.exists():
                store.forget(leftover.name)

    def _turn(self, now: float) -> None:
        self._day = time.strftime("%Y-%m-%d", time.gmtime(now))
        self._day_ends = (now // _DAY_SECONDS + 1) * _DAY_SECONDS


def _sum(one: Counted, other: Counted) -> Counted:
    return Counted(one.requests + other.requests, one.tokens + other.tokens)
