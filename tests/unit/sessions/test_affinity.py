from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.sessions.affinity import NEVER_CROWDED, Affinity, choose, preference
from vllm_vlinders.sessions.identity import session_hash

NAMES = st.text(min_size=1, max_size=20).map(lambda text: session_hash("t", text))
MANY = [session_hash("t", f"session {number}") for number in range(4000)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 8])
def test_one_rank_more_moves_only_the_sessions_that_go_there(ranks: int) -> None:
    moved = [name for name in MANY if preference(name, ranks)[0] != preference(name, ranks + 1)[0]]

    assert all(preference(name, ranks + 1)[0] == ranks for name in moved)
    assert len(moved) / len(MANY) == pytest.approx(1 / (ranks + 1), abs=0.03)


@given(NAMES, st.integers(2, 32))
def test_without_the_last_rank_the_others_keep_their_order(name: str, ranks: int) -> None:
    before = preference(name, ranks)

    assert sorted(before) == list(range(ranks))
    assert preference(name, ranks - 1) == tuple(rank for rank in before if rank != ranks - 1)


def test_sessions_are_spread_evenly() -> None:
    homes = [preference(name, 8)[0] for name in MANY]

    assert max(homes.count(rank) for rank in range(8)) < 1.2 * len(MANY) / 8


def test_every_process_has_the_same_order() -> None:
    code = "from vllm_vlinders.sessions.affinity import preference; print(preference('00ff00ff00ff00ff', 9))"
    printed = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }

    assert printed == {f"{preference('00ff00ff00ff00ff', 9)}\n"}


@given(
    st.integers(2, 9),
    st.floats(1, 3),
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=300),
)
def test_the_load_is_bounded_after_every_request_of_any_sequence(
    ranks: int, skew: float, steps: list[tuple[int, bool]]
) -> None:
    affinity, running = Affinity(skew), []
    for number, ends in steps:
        loads = [float(sum(rank == here for here in running)) for rank in range(ranks)]
        if ends and running:
            running.pop(number % len(running))
            continue
        rank = affinity.choose(MANY[number], loads)
        running.append(rank)
        assert loads[rank] + 1 <= max(NEVER_CROWDED, math.ceil(skew * len(running) / ranks))


def test_a_session_spills_from_a_crowded_rank_and_comes_back() -> None:
    name = MANY[0]
    home, second = preference(name, 4)[:2]
    crowded = [2.0] * 4
    crowded[home] = 20
    affinity = Affinity(1.25)

    assert affinity.choose(name, [2.0] * 4) == home
    assert affinity.choose(name, crowded) == second
    assert affinity.choose(name, [2.0] * 4) == home
    assert dict(affinity.counts) == {"home": 2, "spilled": 1, "moved": 2}
    assert choose(name, [9.0] * 4, 1) == home
