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


def worth(used: float, turns: int, tokens: int, fade_seconds: float) -> float:
    """Return what keeping a chain is worth, a logarithm: chance of a return times cost of its last block.

    The chance is Laplace's rule of succession on the turns so far (a session that has come back every
    time is likely to do so again), and fades by e in `fade_seconds` since it was used. All fade alike, so the
    order of two chains never changes until one of them is used: the present moment cancels out. To compute
    a block again costs the more the longer the prefix is that it attends to: in a transformer of hidden
    size h, attention costs as much as all else at a length of 6h tokens.

    Args:
        used: when it was last used, in seconds.
        turns: how many requests of the session have ended; 1 or more.
        tokens: the length of the prefix.
        fade_seconds: in which the chance of a return falls by e.
    """
    chance = turns / (turns + 1)
    return used / fade_seconds + math.log(chance * (1 + tokens / _TOKENS_OF_DOUBLE_COST))


@dataclass(slots=True, eq=False)
class Shelf:
    """What is kept for one tenant.

    Attributes:
        holds: block id to the number of the tenant's chains that hold it.
        chains: the least worth first.
    """

    holds: dict[int, int] = field(default_factory=dict)
    chains: LazyHeap[Chain] = field(default_factory=LazyHeap)
