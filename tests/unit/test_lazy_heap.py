"""The heap that anything can be removed from, beside a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.lazy_heap import LazyHeap

MOVES = st.lists(st.tuples(st.integers(0, 20), st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5))))


@given(moves=MOVES)
def test_the_first_is_the_lowest_and_of_equals_the_one_entered_first(
    moves: list[tuple[int, tuple[int, int] | None]],
) -> None:
    heap: LazyHeap[int] = LazyHeap()
    entered: dict[int, tuple[tuple[int, int], int]] = {}
    for number, (item, key) in enumerate(moves):
        if key is None:
            heap.discard(item)
            entered.pop(item, None)
        else:
            heap.push(item, *key)
            entered[item] = (key, number)

        order = sorted(entered, key=entered.__getitem__)
        assert (set(heap), len(heap)) == (set(entered), len(entered))
        assert heap.firsts(3) == order[:3]
        if order:
            assert heap.first() == order[0]
            assert heap.first_key() == entered[order[0]][0][0]


def test_items_that_are_moved_again_and_again_take_no_more_room() -> None:
    heap: LazyHeap[int] = LazyHeap()
    heap.push(0, 0)
    for number in range(10_000):
        heap.push(1, number + 1)

    assert len(heap._heap) < 100
    assert heap.firsts(2) == [0, 1]
