"""Hit rates of retention over sessions that come and go, beside one that keeps what was used last.

    python benchmarks/retention.py

Sessions begin at random (a Poisson process), each with a chance of its own to go on after a turn (a beta
distribution with mean 2/3), and pause for a time whose logarithm is normal; each turn adds 4 to 20 blocks. What counts
is how many of the blocks of earlier turns are still kept when a turn begins. Ten minutes, four times; no engine takes
part.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from vllm_vlinders.sessions.chain import Chain
from vllm_vlinders.sessions.retention import Retention

TTL_SECONDS, HORIZON_SECONDS, MOST_TURNS, RUNS = 300, 600, 25, 4


class Case(NamedTuple):
    """Sessions a second, their median pause in seconds, the spread of its logarithm, and how many blocks are kept."""

    rate: float
    pause: float
    spread: float
    blocks: int


CASES = (
    Case(2.0, 3.0, 0.5, 2500),
    Case(1.0, 3.0, 0.5, 1000),
    Case(1.0, 5.0, 1.0, 1500),
    Case(0.3, 10.0, 1.0, 1000),
    Case(0.5, 20.0, 1.0, 2000),
    Case(0.2, 30.0, 1.0, 1500),
    Case(0.5, 40.0, 1.2, 4000),
    Case(0.3, 60.0, 1.0, 2000),
)


@dataclass(frozen=True)
class Block:
    """A KV block."""

    block_id: int


class LeastRecentlyUsed(Retention):
    """The rival: what was used longest ago goes first."""

    def _weigh(self, chain: Chain) -> None:
        chain.worth = chain.session.used
        self._shelves[chain.session.tenant].chains.push(chain, chain.worth)
        self._chains.push(chain, chain.worth)


def hit_rate(kind: type[Retention], case: Case, seed: int) -> float:
    """Return the share of earlier blocks that were found, in percent."""
    draw, numbers = random.Random(seed), count()
    retention = kind(case.blocks, case.blocks, TTL_SECONDS, 16)
    due: list[tuple[float, int, int, float]] = []
    begin, session = 0.0, 0
    while (begin := begin + draw.expovariate(case.rate)) < HORIZON_SECONDS:
        due.append((begin, session := session + 1, 0, draw.betavariate(2, 1)))
    heapq.heapify(due)
    lengths: dict[int, int] = {}
    found = wanted = 0
    while due:
        now, session, turn, goes_on = heapq.heappop(due)
        retention.expire(now)
        known = retention.session(str(session))
        kept = [] if known is None else known.chains[0].blocks.copy()
        length = lengths.get(session, 0)
        found, wanted = found + len(kept), wanted + length
        lengths[session] = length + draw.randint(4, 20)
        prefix = kept + [Block(next(numbers)) for _ in range(lengths[session] - len(kept))]
        for block in prefix:
            retention.take(block)
        retention.keep(str(session), "t", prefix, now)
        for block in filter(retention.holds, prefix):
            retention.park(block)
        if turn < MOST_TURNS and draw.random() < goes_on:
            away = draw.lognormvariate(math.log(case.pause), case.spread)
            heapq.heappush(due, (now + away, session, turn + 1, goes_on))
    return 100 * found / wanted


def main() -> None:
    """Print the table."""
    print(
        "| sessions a second | median pause, s | spread | blocks | used last, % | ours, % |\n|---|---|---|---|---|---|"
    )
    for case in CASES:
        shares = [
            sum(hit_rate(kind, case, seed) for seed in range(RUNS)) / RUNS
            for kind in (LeastRecentlyUsed, Retention)
        ]
        print(
            "|", " | ".join([*(f"{number:g}" for number in case), *(f"{share:.1f}" for share in shares)]), "|"
        )


if __name__ == "__main__":
    main()
