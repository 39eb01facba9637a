"""Which data-parallel rank a session goes to: the same in every process, without shared state."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import shake_128
from struct import unpack

NEVER_CROWDED = 8
"""With so few requests a rank takes its sessions whatever the others have.

The mean of next to none says nothing; and what a spill costs is certain, a whole prefix computed anew, where the
requests of a small batch share one reading of the weights.
"""
_REMEMBERED = 65_536


@lru_cache(maxsize=_REMEMBERED)
def preference(session: str, ranks: int) -> tuple[int, ...]:
    """Return all ranks, the one where the session is at home first.

    Rendezvous hashing (Thaler and Ravishankar, 1998): each rank draws a number for the session, the
    highest wins. When one of n ranks goes, only its own sessions move; when one comes, 1/n of all do.
    The numbers of the first ranks are the same however many there are: they are the first bytes of an
    endless hash.

    Args:
        session: any text.
        ranks: how many there are.
    """
    numbers = unpack(f"<{ranks}I", shake_128(session.encode()).digest(4 * ranks))
    return tuple(sorted(range(ranks), key=numbers.__getitem__, reverse=True))


def choose(session: str, loads: Sequence[float], max_skew: float) -> int:
    """Return the rank for the next request of `session`.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016): the first rank in the order of
    preference that is not crowded. There always is one: some rank has no more than the mean.

    Args:
        session: as in `preference`.
        loads: how many requests each rank has.
        max_skew: 1 or more; with the new request no rank that takes it has more than so many means, rounded up,
            or `NEVER_CROWDED`.
    """
    most = max(NEVER_CROWDED, math.ceil(max_skew * (sum(loads) + 1) / len(loads)))
    order = preference(session, len(loads))
    for rank in order:
        if loads[rank] + 1 <= most:
            return rank
    return order[0]


class Affinity:
    """Chooses ranks and counts what came of it, in one API server process.

    Args:
        max_skew: as of the function `choose`.
        on_count: is told each of the words that are counted.

    Attributes:
        counts: requests that went ``home`` or ``spilled``, and sessions that ``moved`` since the last one.
    """

    def __init__(self, max_skew: float, on_count: Callable[[str], None] = lambda _: None) -> None:
        self.counts: Counter[str] = Counter()
        self._max_skew = max_skew
        self._on_count = on_count
        self._last: OrderedDict[str, int] = OrderedDict()

    def choose(self, session: str, loads: Sequence[float]) -> int:
        """As the function `choose`."""
        rank = choose(session, loads, self._max_skew)
        self._count("home" if rank == preference(session, len(loads))[0] else "spilled")
        if self._last.get(session, rank) != rank:
            self._count("moved")
        self._last[session] = rank
        self._last.move_to_end(session)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return rank

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self._on_count(what)
