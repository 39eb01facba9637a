from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.sessions.pauses import Pauses
from vllm_vlinders.sessions.retention import Retention


class Block:
    def __init__(self, block_id: int) -> None:
        self.block_id = block_id


@pytest.mark.parametrize("seconds", [0.5, 3.0, 200.0])
def test_the_mean_becomes_that_of_the_pauses(seconds: float) -> None:
    pauses = Pauses(40.0)
    moves = [pauses.note(seconds) for _ in range(5000)]

    assert pauses.mean == pytest.approx(seconds, rel=0.5)
    assert sum(moves) < 40  # what is computed with it holds for long
    assert not any(moves[-100:])


def test_while_pauses_merely_vary_the_mean_stands_still() -> None:
    """All that is kept is weighed anew when it moves, in a step of the engine."""
    draw, pauses = random.Random(0), Pauses(40.0)
    moves = [pauses.note(draw.lognormvariate(3, 1)) for _ in range(10_000)]

    assert sum(moves[1000:]) <= 2


@given(st.lists(st.floats(0, 1e6), max_size=200))
def test_the_mean_is_a_number_to_divide_by_and_moves_only_where_it_says_so(seconds: list[float]) -> None:
    pauses = Pauses(40.0)
    for each in seconds:
        before = pauses.mean
        assert pauses.note(each) == (pauses.mean != before)
        assert pauses.mean > 0


def test_a_session_that_is_over_goes_before_a_younger_one_that_still_comes_back() -> None:
    retention = Retention(20, 20, 300.0, 16)
    over, live = [Block(number) for number in range(8)], [Block(number) for number in range(8, 20)]

    def say(name: str, blocks: list[Block], now: float) -> None:
        retention.keep(name, "t", blocks, now)
        for block in blocks:
            retention.park(block)

    for turn in range(1, 9):
        say("over", over[:turn], float(turn))
    for turn in range(1, 5):
        say("live", live[: 3 * turn], 10.0 + 2 * turn)

    assert retention.surrender(8) == over[::-1]  # ten seconds of silence, where pauses last one or two
    assert retention.session("over") is None
