"""What sessions cost: choosing a rank, keeping the blocks of a request that ends, and doing nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from vllm_vlinders.sessions.affinity import Affinity
from vllm_vlinders.sessions.identity import session_hash
from vllm_vlinders.sessions.queue import SessionQueue
from vllm_vlinders.sessions.retention import Retention

BLOCKS = 20_000


@dataclass(eq=False)
class Block:
    """What retention reads of a KV block."""

    block_id: int


class Sink:
    """Takes blocks, and gives the same one: what is measured is ours."""

    fake_free_list_head = fake_free_list_tail = None
    num_free_blocks = BLOCKS

    def popleft_n(self, n: int) -> list[Any]:
        """Give `n` times nothing."""
        return [None] * n

    def append_n(self, blocks: list[Any]) -> None:
        """Take them."""


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_choosing_the_rank_of_a_session_seen_before(benchmark: Any, ranks: int) -> None:
    """Target: under 20 us."""
    affinity, loads = Affinity(1.25), [3.0] * ranks
    names = [session_hash("t", str(number)) for number in range(1000)]
    numbers = count()
    benchmark(lambda: affinity.choose(names[next(numbers) % 1000], loads))


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_choosing_the_rank_of_a_new_session(benchmark: Any, ranks: int) -> None:
    affinity, loads, numbers = Affinity(1.25), [3.0] * ranks, count()
    benchmark(lambda: affinity.choose(session_hash("t", str(next(numbers))), loads))


@pytest.mark.parametrize("prefix", [16, 256, 2048])
def test_keeping_the_blocks_of_a_turn_that_adds_8(benchmark: Any, prefix: int) -> None:
    """Target: under 20 us for a finished request. The budget is full: older sessions give way."""
    retention = Retention(8 * prefix, 8 * prefix, 1000, 16)
    numbers, times = count(), count(0, 100)

    def blocks(number: int) -> list[Block]:
        return [Block(next(numbers)) for _ in range(number)]

    def next_turn() -> tuple[tuple[Any, ...], dict[str, Any]]:
        name, now, known = f"s{next(numbers)}", float(next(times)), blocks(prefix)
        retention.keep(name, "t", known, now)
        return (name, "t", [*known, *blocks(8)], now + 5), {}

    while retention.held < retention.most:
        arguments, _ = next_turn()
        retention.keep(*arguments)
    benchmark.pedantic(retention.keep, setup=next_turn, rounds=300)


def test_weighing_2000_sessions_anew(benchmark: Any) -> None:
    """Happens when the mean pause has moved by half: once in some hundred turns at the most."""
    retention, numbers = Retention(32_000, 32_000, 1000, 16), count()
    for number in range(2000):
        retention.keep(f"s{number}", "t", [Block(next(numbers)) for _ in range(16)], float(number) / 10)
    benchmark(retention._weigh_all)


@pytest.mark.parametrize("wrapped", [False, True], ids=["vLLM's alone", "ours"])
def test_a_step_without_sessions(benchmark: Any, wrapped: bool) -> None:
    """Handing out a block and taking back four, as a decode step of a few requests does."""
    queue: Any = Sink()
    if wrapped:
        queue = SessionQueue(queue, Retention(BLOCKS // 2, BLOCKS // 2, 300, 16))
    four = [Block(number) for number in range(4)]

    def step() -> None:
        if queue.num_free_blocks > 1:
            queue.popleft_n(1)
            queue.append_n(four)

    benchmark(step)
