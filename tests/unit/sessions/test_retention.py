"""Retention under arbitrary sequences of requests: the queue of free blocks stays whole, and kept ones come last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vllm_vlinders.sessions.queue import SessionQueue
from vllm_vlinders.sessions.retention import MOST_CHAINS, Retention

POOL, BUDGET, TENANT_BUDGET, TTL = 24, 12, 8, 100.0


@dataclass(eq=False)
class FakeBlock:
    block_id: int
    users: int = 0
    text: tuple[int, ...] | None = None


@dataclass
class FakeList:
    """vLLM's queue, the first block evicted first."""

    blocks: list[Any]
    fake_free_list_head: None = None
    fake_free_list_tail: None = None

    @property
    def num_free_blocks(self) -> int:
        return len(self.blocks)

    def popleft_n(self, n: int) -> list[Any]:
        assert n <= len(self.blocks)
        taken, self.blocks = self.blocks[:n], self.blocks[n:]
        return taken

    def popleft(self) -> Any:
        return self.popleft_n(1)[0]

    def remove(self, block: Any) -> None:
        self.blocks.remove(block)

    def append_n(self, blocks: list[Any]) -> None:
        self.blocks += blocks

    def prepend_n(self, blocks: list[Any]) -> None:
        self.blocks = [*blocks, *self.blocks]


@dataclass
class Pool:
    """A block pool: what a prefix's blocks are, is said by the text up to their ends."""

    clock: Callable[[], float] = lambda: 0.0
    retention: Retention = field(default_factory=lambda: Retention(BUDGET, TENANT_BUDGET, TTL, 16))

    def __post_init__(self) -> None:
        self.all = [FakeBlock(number) for number in range(POOL)]
        self.queue = SessionQueue(FakeList(self.all.copy()), self.retention, self.clock)
        self.cached: dict[tuple[int, ...], FakeBlock] = {}

    def start(self, text: tuple[int, ...]) -> list[FakeBlock] | None:
        """Return the blocks of a request, found or new; None if there is no room."""
        found: list[FakeBlock] = []
        for end in range(1, len(text) + 1):
            if text[:end] not in self.cached:
                break
            found.append(self.cached[text[:end]])
        new = len(text) - len(found)
        if new + sum(not block.users for block in found) > self.queue.num_free_blocks:
            return None
        for block in found:
            if not block.users:
                self.queue.remove(block)
            block.users += 1
        idle_before = len(self.retention.idle)
        ordinary = self.queue.ordinary.num_free_blocks
        fresh: list[FakeBlock] = self.queue.popleft_n(new)
        assert len(fresh) == new
        given_up = idle_before - len(self.retention.idle)
        assert given_up == max(0, new - ordinary) or self.retention.counts["dropped_expired"]
        for end, block in enumerate(fresh, len(found) + 1):
            if block.text is not None and self.cached.get(block.text) is block:
                del self.cached[block.text]
            block.text, block.users = text[:end], 1
            self.cached.setdefault(block.text, block)
        return found + fresh

    def end(self, blocks: list[FakeBlock], session: str | None, tenant: str) -> None:
        """Free the blocks, those of a session after they are kept."""
        if session is not None:
            self.queue.keep(session, tenant, blocks)
        for block in blocks:
            block.users -= 1
        self.queue.append_n([block for block in reversed(blocks) if not block.users])


class Machine(RuleBasedStateMachine):
    """Sessions that grow and branch, one-off requests, time, resets, lost blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pool = Pool(lambda: self.now)
        self.running: list[tuple[list[FakeBlock], str | None, str]] = []
        self.texts: dict[str, tuple[int, ...]] = {}

    @rule(number=st.integers(0, 5), more=st.integers(1, 4), mark=st.integers(0, 3), back=st.integers(0, 3))
    def turn(self, number: int, more: int, mark: int, back: int) -> None:
        session = f"s{number}"
        before = self.texts.get(session, (-1, number // 2))
        text = (before[: len(before) - back] or before) + (mark,) * more
        blocks = self.pool.start(text[: POOL - 2])
        if blocks is not None:
            self.texts[session] = text[: POOL - 2]
            self.running.append((blocks, session, f"t{number % 2}"))

    @rule(length=st.integers(1, 12), mark=st.integers(10, 1000))
    def one_off(self, length: int, mark: int) -> None:
        blocks = self.pool.start((mark,) * length)
        if blocks is not None:
            self.running.append((blocks, None, "t0"))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        blocks, session, tenant = self.running.pop(which % len(self.running))
        self.pool.end(blocks, session, tenant)

    @rule(seconds=st.floats(0, 80))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len(self.texts) > 3)
    @rule()
    def clear(self) -> None:
        self.pool.queue.clear()
        assert not self.pool.retention.held

    @precondition(lambda self: self.pool.retention.held)
    @rule(which=st.integers(0, 100))
    def lose_content(self, which: int) -> None:
        held = [block for block in self.pool.all if self.pool.retention.holds(block) and not block.users]
        if held:
            block = held[which % len(held)]
            self.pool.queue.remove(block)
            self.pool.queue.prepend_n([block])
            assert not self.pool.retention.holds(block)

    @invariant()
    def budgets_hold(self) -> None:
        retention = self.pool.retention
        assert retention.held <= BUDGET
        assert all(retention.held_for(tenant) <= TENANT_BUDGET for tenant in ("t0", "t1"))
        assert all(len(session.chains) <= MOST_CHAINS for session in retention.sessions)

    @invariant()
    def each_block_is_in_one_place(self) -> None:
        pool = self.pool
        free = [*pool.queue.ordinary.blocks, *pool.retention.idle.values()]
        used = [block for block in pool.all if block.users]
        assert sorted(block.block_id for block in [*free, *used]) == list(range(POOL))
        assert pool.queue.num_free_blocks == len(free)
        assert all(pool.retention.holds(block) for block in pool.retention.idle.values())

    @invariant()
    def what_is_held_is_in_a_chain(self) -> None:
        chains = [chain for session in self.pool.retention.sessions for chain in session.chains]
        in_chains = {block.block_id for chain in chains for block in chain.blocks}
        assert in_chains == {block.block_id for block in self.pool.all if self.pool.retention.holds(block)}

    def teardown(self) -> None:
        """When all has ended and the times to live have passed, every block is an ordinary free one."""
        for blocks, session, tenant in self.running:
            self.pool.end(blocks, session, tenant)
        self.now += TTL
        taken = self.pool.queue.popleft_n(POOL)
        assert len(taken) == POOL
        assert not self.pool.retention.held
        assert not list(self.pool.retention.sessions)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture
def pool() -> Pool:
    return Pool()


def say(pool: Pool, session: str, text: tuple[int, ...], tenant: str = "t") -> None:
    blocks = pool.start(text)
    assert blocks is not None
    pool.end(blocks, session, tenant)


def hits(pool: Pool, text: tuple[int, ...]) -> int:
    return sum(text[:end] in pool.cached for end in range(1, len(text) + 1))


def test_one_off_requests_push_out_each_other_and_no_session(pool: Pool) -> None:
    say(pool, "a", (1, 2, 3, 4))
    for mark in range(10, 60):
        blocks = pool.start((mark,) * 10)
        assert blocks is not None
        pool.end(blocks, None, "t")

    assert hits(pool, (1, 2, 3, 4)) == 4


def test_a_request_that_needs_all_blocks_gets_them(pool: Pool) -> None:
    say(pool, "a", (1, 2, 3, 4))

    blocks = pool.start((9,) * POOL)

    assert blocks is not None
    assert hits(pool, (1, 2, 3, 4)) == 0
    assert pool.retention.counts["dropped_room"] == 4


def test_under_pressure_leaves_go_before_roots(pool: Pool) -> None:
    say(pool, "a", (1, 2, 3, 4))

    pool.start((9,) * (POOL - 2))

    assert hits(pool, (1, 2, 3, 4)) == 2


def test_a_session_that_has_come_back_often_outlives_a_newcomer_of_the_same_moment(pool: Pool) -> None:
    for length in range(1, 5):
        say(pool, "old", (1, 2, 3, 4)[:length])
    say(pool, "new", (5, 6, 7, 8))

    pool.start((9,) * (POOL - 4))

    assert hits(pool, (1, 2, 3, 4)) == 4
    assert hits(pool, (5, 6, 7, 8)) == 0


def test_a_session_that_branches_keeps_both_prefixes(pool: Pool) -> None:
    say(pool, "agent", (1, 2, 3))
    say(pool, "agent", (7, 8))
    say(pool, "agent", (1, 2, 3, 4))

    pool.start((9,) * (POOL - 6))

    assert hits(pool, (1, 2, 3, 4)) == 4
    assert hits(pool, (7, 8)) == 2


def test_a_session_whose_next_turn_runs_loses_nothing_to_those_that_need_room(pool: Pool) -> None:
    say(pool, "running", (1, 2, 3, 4))
    pool.start((1, 2, 3, 4, 5))
    say(pool, "idle", (6, 7, 8))

    pool.start((9,) * (POOL - 5))

    assert pool.retention.session("running") is not None
    assert pool.retention.session("idle") is None


def test_what_is_kept_no_longer_is_evicted_after_the_ordinary_blocks() -> None:
    now = 0.0
    pool = Pool(lambda: now)
    say(pool, "a", (1, 2, 3, 4))
    blocks = pool.start((9,) * 10)
    assert blocks is not None
    pool.end(blocks, None, "t")
    now = TTL + 1

    pool.start((10,) * 15)

    assert not pool.retention.held
    assert hits(pool, (1, 2, 3, 4)) == 4
