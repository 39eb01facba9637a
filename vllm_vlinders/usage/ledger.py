"""The ledger of one API server process: sums in memory, stored by a thread twice a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_vlinders.errors import StartupError
from vllm_vlinders.usage.entry import Amounts, Key, Loss
from vllm_vlinders.usage.journal import Counted, Journal, leftovers

if TYPE_CHECKING:  # it brings SQLAlchemy
    from vllm_vlinders.usage.store import UsageStore

FLUSH_SECONDS = 0.5
_DAY_SECONDS = 86_400
_MOST_LINES = 100_000


class UsageLedger:
    """Never makes a request wait for the store, nor fails one.

    Args:
        open_store: opens the store; called by the thread, again and again while it fails.
        folder: where the journals are.
        on_problem: is told of a problem once, and with None of its end.
        on_loss: is told how many requests have been lost.
        clock: returns the seconds since 1970.
    """

    def __init__(
        self,
        open_store: Callable[[], UsageStore],
        folder: Path,
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
        self._day, self._day_ends = "", 0.0
        self._store: UsageStore | None = None
        self._journal = self._make_journal()
        self._ending = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="vlinders-usage", daemon=True)

    def start(self) -> None:
        """Start the thread; what is left is stored at the end of the process."""
        self._thread.start()
        Finalize(self, UsageLedger.stop, args=(self,), exitpriority=10)

    def stop(self) -> None:
        """Store what is left, and close. Idempotent."""
        if self._ending.is_set():
            return
        self._ending.set()
        stored = self.flush()
        if self._store is not None and stored and self._journal is not None:
            self._journal.close()
            self._try(lambda store, name=self._journal.name: store.forget(name))  # type: ignore[misc]
            self._store.close()

    def add(self, tenant: str, model: str, amounts: Amounts) -> None:
        """Count what a request used."""
        if self._journal is not None:
            self._journal.count(amounts.requests, amounts.tokens)
        now = self._clock()
        if now >= self._day_ends:
            self._turn(now)
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
        self.flush()
        store = self._store or self._open_store()
        return store.read(first, last, tenant), store.lost(first, last)

    def flush(self) -> bool:
        """Store what has been counted; return whether all of it is stored."""
        with self._writing:
            with self._lock:
                taken, self._rows = self._rows, {}
                dropped, self._dropped = self._dropped, Counted()
            if not taken and dropped == Counted():
                return True
            rows = {Key(*key): Amounts(*row) for key, row in taken.items()}
            counted = Counted(
                sum(row.requests for row in rows.values()), sum(row.tokens for row in rows.values())
            )
            stored = _sum(_sum(self._stored, counted), dropped)
            name = "" if self._journal is None else self._journal.name
            if self._try(lambda store: store.add(rows, name, stored, Loss(self._day, *dropped))):
                self._stored = stored
                self._on_loss(dropped.requests)
                return True
            with self._lock:
                for key, row in self._rows.items():
                    rows[Key(*key)] = rows.get(Key(*key), Amounts()).plus(Amounts(*row))
                self._rows = {(key.day, key.tenant, key.model): list(row) for key, row in rows.items()}
                self._dropped = _sum(self._dropped, dropped)
            return False

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
        try:
            if self._store is None:
                self._store = self._open_store()
            act(self._store)
        except (StartupError, OSError) as error:
            if not self._failing:
                self._on_problem(str(error))
            self._failing = True
        else:
            if self._failing:
                self._on_problem(None)
            self._failing = False
        return not self._failing

    def _count_losses(self, store: UsageStore) -> None:
        """Count as lost what processes that were killed had not stored."""
        for leftover in leftovers(self._folder):
            self._turn(self._clock())
            lost = store.lose(leftover.name, leftover.counted, self._day)
            self._on_loss(lost.requests)

    def _make_journal(self) -> Journal | None:
        try:
            return Journal(self._folder)
        except OSError as error:
            self._on_problem(f"{self._folder} cannot be written ({error.strerror}): losses are not counted")
            return None

    def _turn(self, now: float) -> None:
        self._day = time.strftime("%Y-%m-%d", time.gmtime(now))
        self._day_ends = (now // _DAY_SECONDS + 1) * _DAY_SECONDS


def _sum(one: Counted, other: Counted) -> Counted:
    return Counted(one.requests + other.requests, one.tokens + other.tokens)
