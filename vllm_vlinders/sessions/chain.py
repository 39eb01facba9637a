"""What is kept of a session: chains of KV blocks, and what each of them is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from vllm_vlinders.lazy_heap import LazyHeap

_TOKENS_OF_DOUBLE_COST = 24_000


class Block(Protocol):
    """What is read of vLLM's KV block; identity is its equality here."""

    block_id: int


@dataclass(slots=True, eq=False)
class Session:
    """One conversation or agent run.

    Attributes:
        name: its hash.
        tenant: who pays.
        turns: how many of its requests have ended.
        used: when the last one did, in seconds.
        chains: what is kept, the latest last.
    """

    name: str
    tenant: str
    turns: int = 0
    used: float = 0.0
    chains: list[Chain] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Chain:
    """The blocks of one prefix, the root first; a session that branches has several.

    Attributes:
        session: whose.
        blocks: of the whole prefix, as far as it is still kept.
        worth: what is compared; see `worth`.
    """

    session: Session
    blocks: list[Block]
    worth: float = 0.0


def worth(used: float, turns: int, tokens: int, pause: float) -> float:
    """Return what keeping a chain is worth, a logarithm: odds of a return times cost of its last block.

    After n turns the odds of another one are n to 1 by Laplace's rule of succession: a session that has come
    back every time is likely to do so again. The longer it stays away the less likely: that one which comes back
    has not done so yet falls by e in each mean pause, and by Bayes' rule so do the odds. All fall alike, so the
    order of two chains never changes until one of them is used: the present moment cancels out. To compute
    a block again costs the more the longer the prefix is that it attends to: in a transformer of hidden
    size h, attention costs as much as all else at a length of 6h tokens.

    Args:
        used: when it was last used, in seconds.
        turns: how many requests of the session have ended; 1 or more.
        tokens: the length of the prefix.
        pause: the mean pause of sessions that come back, in seconds.
    """
    return used / pause + math.log(turns * (1 + tokens / _TOKENS_OF_DOUBLE_COST))


@dataclass(slots=True, eq=False)
class Shelf:
    """What is kept for one tenant.

    Attributes:
        holds: block id to the number of the tenant's chains that hold it.
        chains: the least worth first.
    """

    holds: dict[int, int] = field(default_factory=dict)
    chains: LazyHeap[Chain] = field(default_factory=LazyHeap)
