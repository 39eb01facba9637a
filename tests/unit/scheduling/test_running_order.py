"""The order kept by insertion is that of a stable sort."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.scheduling.running_order import restore_order

URGENCY = attrgetter("priority")


@dataclass(eq=False)
class Running:
    priority: int


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-3, 3), max_size=5),  # priorities of those that start
            st.sets(st.integers(0, 20), max_size=4),  # places of those that end
            st.integers(0, 2),  # how many are preempted from the end
        ),
        max_size=20,
    )
)
def test_the_order_is_that_of_a_stable_sort_whatever_the_steps_do(
    steps: list[tuple[list[int], set[int], int]],
) -> None:
    running: list[Running] = []
    last: Running | None = None
    for started, ended, preempted in steps:
        running = [request for place, request in enumerate(running) if place not in ended]
        del running[max(0, len(running) - preempted) :]
        running += map(Running, started)
        expected = sorted(running, key=URGENCY)

        restore_order(running, last, URGENCY)

        assert running == expected
        last = running[-1] if running else None
