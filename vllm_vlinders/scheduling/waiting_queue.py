"""The queue of waiting requests: by priority, and first come first served among equals."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue needs of a request; identity is its equality."""

    priority: int


R = TypeVar("R", bound=Waiting)


class WaitingQueue(Generic[R]):
    """A heap with the operations that vLLM's scheduler asks of a request queue.

    The lower ``request.priority`` comes first. Among equals a request that is added goes to the back
    and one that is prepended (skipped this step, or preempted) to the front; so with one priority
    throughout it behaves as vLLM's first-come-first-served queue, operation by operation.

    Adding and popping cost O(log n); removing costs O(1), the entry being dropped when it surfaces.
    A request's priority is read when it enters the queue.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, R]] = []
        self._places: dict[R, int] = {}
        self._back = 0
        self._front = 0

    def add_request(self, request: R) -> None:
        """Put `request` behind its equals."""
        self._back += 1
        self._enter(request, self._back)

    def prepend_request(self, request: R) -> None:
        """Put `request` before its equals."""
        self._front -= 1
        self._enter(request, self._front)

    def prepend_requests(self, requests: Iterable[R]) -> None:
        """Prepend each of `requests`, so that the last one stands first among its equals."""
        for request in list(requests):
            self.prepend_request(request)

    def peek_request(self) -> R:
        """Return the first request and leave it.

        Raises:
            IndexError: the queue is empty.
        """
        self._drop_removed()
        return self._heap[0][2]

    def pop_request(self) -> R:
        """Remove and return the first request.

        Raises:
            IndexError: the queue is empty.
        """
        self._drop_removed()
        request = heapq.heappop(self._heap)[2]
        del self._places[request]
        return request

    def remove_request(self, request: R) -> None:
        """Remove `request`.

        Raises:
            ValueError: it is not in the queue.
        """
        if self._places.pop(request, None) is None:
            message = f"{request!r} is not waiting"
            raise ValueError(message)
        self._compact()

    def remove_requests(self, requests: Iterable[R]) -> None:
        """Remove those of `requests` that are in the queue."""
        for request in requests:
            self._places.pop(request, None)
        self._compact()

    def clear(self) -> None:
        """Remove all requests."""
        self._heap.clear()
        self._places.clear()

    def __contains__(self, request: Any) -> bool:
        """Tell whether `request` is in the queue."""
        return request in self._places

    def __bool__(self) -> bool:
        """Tell whether any request is in the queue."""
        return bool(self._places)

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._places)

    def __iter__(self) -> Iterator[R]:
        """Iterate over the requests in order, over a copy: the queue may change meanwhile."""
        return iter([entry[2] for entry in sorted(self._heap, key=_order) if self._holds(entry)])

    def __getitem__(self, index: int) -> R:
        """Return the request at `index` of the order; linear, for inspection."""
        return list(self)[index]

    def _enter(self, request: R, place: int) -> None:
        self._places[request] = place
        heapq.heappush(self._heap, (request.priority, place, request))

    def _holds(self, entry: tuple[int, int, R]) -> bool:
        return self._places.get(entry[2]) == entry[1]

    def _drop_removed(self) -> None:
        while self._heap and not self._holds(self._heap[0]):
            heapq.heappop(self._heap)

    def _compact(self) -> None:
        """Rebuild once the removed outnumber the present: memory stays linear, cost amortised O(1)."""
        if len(self._heap) > 2 * len(self._places) + 64:
            self._heap = [entry for entry in self._heap if self._holds(entry)]
            heapq.heapify(self._heap)


def _order(entry: tuple[int, int, Any]) -> tuple[int, int]:
    return entry[:2]
