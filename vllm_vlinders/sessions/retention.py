"""Which free KV blocks are given away last: those of the sessions that are likely to come back.

Retention never takes a block from anybody. A kept block that no request uses is a free block like any
other, and is counted so; it is only the last to be handed out.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal

from vllm_vlinders.lazy_heap import LazyHeap
from vllm_vlinders.sessions.chain import Block, Chain, Session, Shelf, worth
from vllm_vlinders.sessions.pauses import Pauses

Reason = Literal["room", "budget", "tenant_budget", "branches", "expired", "reset", "lost"]
MOST_CHAINS = 4
"""Of one session: an agent run that branches keeps so many prefixes."""
_PAUSES_TO_LIVE = 8
"""Before any session has come back, a pause is taken to be this part of the time to live."""


class Retention:
    """Keeps account of the chains, and of the free blocks in them.

    Whoever calls a method that returns blocks puts them among the ordinary free ones.

    Args:
        blocks: the most to hold at once, 0 or more.
        tenant_blocks: the most to hold for one tenant.
        ttl_seconds: how long after its last request a session is kept.
        block_tokens: how many tokens a block has.

    Attributes:
        most: `blocks`.
        idle: the held blocks that no request uses, by block id.
        changed: whether other blocks are held than when somebody last looked, who resets it.
        counts: what has happened, in blocks: ``kept``, and ``dropped_…`` by reason.
    """

    def __init__(self, blocks: int, tenant_blocks: int, ttl_seconds: float, block_tokens: int) -> None:
        self.idle: dict[int, Block] = {}
        self.counts: Counter[str] = Counter()
        self.most = blocks
        self.changed = False
        self._tenant_most = tenant_blocks
        self._ttl = ttl_seconds
        self._block_tokens = block_tokens
        self._holds: dict[int, int] = {}
        self._chains: LazyHeap[Chain] = LazyHeap()  # the least worth first
        self._shelves: dict[str, Shelf] = {}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._pauses = Pauses(ttl_seconds / _PAUSES_TO_LIVE)

    @property
    def held(self) -> int:
        """How many blocks are held, in use or not."""
        return len(self._holds)

    def held_for(self, tenant: str) -> int:
        """Return how many blocks are held for `tenant`."""
        shelf = self._shelves.get(tenant)
        return 0 if shelf is None else len(shelf.holds)

    @property
    def sessions(self) -> Iterable[Session]:
        """Those of which anything is kept, the one used longest ago first."""
        return self._sessions.values()

    def session(self, name: str) -> Session | None:
        """Return a session; None if nothing is kept of it."""
        return self._sessions.get(name)

    def holds(self, block: Block) -> bool:
        """Tell whether `block` is held."""
        return block.block_id in self._holds

    def keep(self, name: str, tenant: str, blocks: Sequence[Block], now: float) -> list[Block]:
        """Hold the blocks of a request that ends; they are still in use.

        Args:
            name: the session's hash.
            tenant: who pays.
            blocks: all full blocks of its prefix, the root first; not empty.
            now: the moment, never before an earlier one.

        Returns:
            the blocks that are held no longer.
        """
        released = self.expire(now)
        self.changed = True
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(name, tenant)
        elif self._pauses.note(now - session.used):
            self._weigh_all()
        self._sessions.move_to_end(name)
        session.turns += 1
        session.used = now
        chain = self._extend(session, blocks)
        self._weigh(chain)
        while len(session.chains) > MOST_CHAINS:
            released += self._drop(session.chains[0], "branches")
        shelf = self._shelves[tenant]
        while (above := len(shelf.holds) - self._tenant_most) > 0:
            released += self._cut(shelf.chains.first(), above, "tenant_budget")
        while (above := len(self._holds) - self.most) > 0:
            released += self._cut(self._chains.first(), above, "budget")
        return released

    def park(self, block: Block) -> None:
        """Note that nobody uses `block`, which is held, any more."""
        self.idle[block.block_id] = block

    def take(self, block: Block) -> bool:
        """Note that `block` is in use again; tell whether it was among the idle ones."""
        return self.idle.pop(block.block_id, None) is not None

    def surrender(self, number: int) -> list[Block]:
        """Give up at least `number` idle blocks, the least worth first, leaves before roots.

        Returns:
            exactly so many, or all idle blocks if there are fewer.
        """
        released: list[Block] = []
        in_use: list[Chain] = []
        while len(released) < number and self.idle:
            if not self._chains:  # a shared beginning is idle, and all ends are in use
                self._put_back(in_use)
                released += self._cut(self._chains.first(), number - len(released), "room")
                in_use = []
                continue
            chain = self._chains.first()
            if chain.blocks[-1].block_id in self.idle:
                released += self._cut(chain, number - len(released), "room")
            else:  # Its next request runs: to let go of it would free nothing.
                self._chains.discard(chain)
                in_use.append(chain)
        self._put_back(in_use)
        return released

    def expire(self, now: float) -> list[Block]:
        """Let go of the sessions whose time to live has passed."""
        released: list[Block] = []
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.used + self._ttl > now:
                break
            for chain in oldest.chains.copy():
                released += self._drop(chain, "expired")
        return released

    def clear(self) -> list[Block]:
        """Let go of everything."""
        chains = [chain for session in self._sessions.values() for chain in session.chains]
        return [block for chain in chains for block in self._drop(chain, "reset")]

    def lose(self, block: Block) -> list[Block]:
        """Let go of a block whose content is gone, and of all that comes after it in its chains."""
        released: list[Block] = []
        for session in list(self._sessions.values()):
            for chain in session.chains.copy():
                place = next((n for n, kept in enumerate(chain.blocks) if kept is block), None)
                if place is not None:
                    released += self._cut(chain, len(chain.blocks) - place, "lost")
        return released

    def _weigh(self, chain: Chain) -> None:
        session, tokens = chain.session, len(chain.blocks) * self._block_tokens
        chain.worth = worth(session.used, session.turns, tokens, self._pauses.mean)
        self._shelves[session.tenant].chains.push(chain, chain.worth)
        self._chains.push(chain, chain.worth)

    def _weigh_all(self) -> None:
        for session in self._sessions.values():
            for chain in session.chains:
                self._weigh(chain)

    def _extend(self, session: Session, blocks: Sequence[Block]) -> Chain:
        """Hold `blocks`, by one of the chains of `session` if they continue or repeat it."""
        for chain in reversed(session.chains):
            known = chain.blocks
            shorter = min(len(known), len(blocks)) - 1
            if known[shorter] is blocks[shorter]:
                self._hold(session.tenant, blocks[len(known) :])
                known.extend(blocks[len(known) :])
                session.chains.remove(chain)
                session.chains.append(chain)
                return chain
        chain = Chain(session, list(blocks))
        session.chains.append(chain)
        self._hold(session.tenant, blocks)
        return chain

    def _hold(self, tenant: str, blocks: Sequence[Block]) -> None:
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = Shelf()
        self.counts["kept"] += len(blocks)
        for block in blocks:
            number = block.block_id
            self._holds[number] = self._holds.get(number, 0) + 1
            shelf.holds[number] = shelf.holds.get(number, 0) + 1

    def _put_back(self, chains: Iterable[Chain]) -> None:
        for chain in chains:
            self._chains.push(chain, chain.worth)

    def _drop(self, chain: Chain, reason: Reason) -> list[Block]:
        return self._cut(chain, len(chain.blocks), reason)

    def _cut(self, chain: Chain, number: int, reason: Reason) -> list[Block]:
        """Let go of the last `number` blocks of `chain`, or all; return those that are free and held by no other."""
        session, blocks, free = chain.session, chain.blocks, []
        shelf = self._shelves[session.tenant]
        holds, tenant_holds, idle = self._holds, shelf.holds, self.idle
        before = len(blocks)
        self.changed = True
        for block in reversed(blocks[-number:]):
            key = block.block_id
            _release(tenant_holds, key)
            if _release(holds, key) and key in idle:
                free.append(idle.pop(key))
        del blocks[-number:]
        self.counts[f"dropped_{reason}"] += before - len(blocks)
        if not blocks:
            session.chains.remove(chain)
            shelf.chains.discard(chain)
            self._chains.discard(chain)
            if not session.chains:
                del self._sessions[session.name]
            if not shelf.holds:
                del self._shelves[session.tenant]
        return free


def _release(holds: dict[int, int], number: int) -> bool:
    """Count one hold less; tell whether it was the last."""
    left = holds.pop(number) - 1
    if left:
        holds[number] = left
    return not left
