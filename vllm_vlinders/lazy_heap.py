"""A heap from which any item can be removed in O(1)."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
_SLACK = 64


class LazyHeap(Generic[T]):
    """Items by key, the lowest first; equal keys in the order of entry.

    Entering and taking the first cost O(log n). A removed item's entry stays until it surfaces, or
    until such entries outnumber the items: memory stays linear, the cost amortised O(1).
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Any, ...]] = []  # the parts of the key, then the number of the entry, the item
        self._entry: dict[T, int] = {}
        self._entries = 0

    def push(self, item: T, *key: Any) -> None:
        """Enter `item`, or move it to `key`.

        Args:
            item: the item.
            key: compared part by part; the keys of all items have the same number of parts. Flat, since
                to compare tuples in tuples takes twice as long.
        """
        self._entries += 1
        self._entry[item] = self._entries
        heapq.heappush(self._heap, (*key, self._entries, item))
        if len(self._heap) > 2 * len(self._entry) + _SLACK:
            self._compact()

    def discard(self, item: T) -> None:
        """Remove `item` if it is there."""
        if self._entry.pop(item, None) is not None and len(self._heap) > 2 * len(self._entry) + _SLACK:
            self._compact()

    def first(self) -> T:
        """Return the first item and leave it.

        Raises:
            IndexError: the heap is empty.
        """
        item: T = self._first()[-1]
        return item

    def first_key(self) -> Any:
        """Return the first part of the key of the first item.

        Raises:
            IndexError: the heap is empty.
        """
        return self._first()[0]

    def first_with_key(self) -> tuple[T, Any]:
        """Return the first item and the first part of its key.

        Raises:
            IndexError: the heap is empty.
        """
        entry = self._first()
        return entry[-1], entry[0]

    def firsts(self, limit: int) -> list[T]:
        """Return up to `limit` first items in order, in O(limit log limit) where few were removed."""
        found: list[T] = []
        frontier = [(self._heap[0], 0)] if self._heap else []
        while frontier and len(found) < limit:
            entry, index = heapq.heappop(frontier)
            if self._holds(entry):
                found.append(entry[-1])
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(self._heap):
                    heapq.heappush(frontier, (self._heap[child], child))
        return found

    def __contains__(self, item: object) -> bool:
        """Tell whether `item` is there."""
        return item in self._entry

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._entry)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items, in no order."""
        return iter(self._entry)

    def _first(self) -> tuple[Any, ...]:
        heap, entries = self._heap, self._entry
        entry = heap[0]
        while entries.get(entry[-1]) != entry[-2]:
            heapq.heappop(heap)
            entry = heap[0]
        return entry

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._holds(entry)]
        heapq.heapify(self._heap)

    def _holds(self, entry: tuple[Any, ...]) -> bool:
        return bool(self._entry.get(entry[-1]) == entry[-2])
