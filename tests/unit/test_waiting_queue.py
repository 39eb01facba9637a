"""The waiting queue, held against the obvious implementation."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vllm_vlinders.scheduling.waiting_queue import WaitingQueue


@dataclass(eq=False)
class Request:
    priority: int = 0
    name: str = field(default="")


class QueueAgainstLists(RuleBasedStateMachine):
    """One deque per priority, as vLLM's first-come-first-served queue, is the second implementation."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WaitingQueue[Request] = WaitingQueue()
        self.lanes: dict[int, deque[Request]] = {}

    def expected(self) -> list[Request]:
        return [request for priority in sorted(self.lanes) for request in self.lanes[priority]]

    def lane(self, request: Request) -> deque[Request]:
        return self.lanes.setdefault(request.priority, deque())

    @rule(priority=st.integers(-3, 0))
    def add(self, priority: int) -> None:
        request = Request(priority)
        self.queue.add_request(request)
        self.lane(request).append(request)

    @precondition(lambda self: self.expected())
    @rule()
    def pop(self) -> None:
        first = self.expected()[0]
        assert self.queue.peek_request() is first
        assert self.queue.pop_request() is first
        self.lane(first).popleft()

    @precondition(lambda self: self.expected())
    @rule(count=st.integers(1, 5))
    def pop_and_prepend(self, count: int) -> None:
        skipped: deque[Request] = deque()
        for _ in range(min(count, len(self.queue))):
            request = self.queue.pop_request()
            self.lane(request).popleft()
            skipped.appendleft(request)
        self.queue.prepend_requests(skipped)
        for request in skipped:
            self.lane(request).appendleft(request)

    @precondition(lambda self: self.expected())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.expected()))
        self.queue.remove_request(request)
        self.lane(request).remove(request)
        with pytest.raises(ValueError, match="is not waiting"):
            self.queue.remove_request(request)

    @rule(data=st.data())
    def remove_some(self, data: st.DataObject) -> None:
        present = self.expected()
        chosen = data.draw(st.sets(st.sampled_from(present))) if present else set()
        self.queue.remove_requests({*chosen, Request()})
        for request in chosen:
            self.lane(request).remove(request)

    @precondition(lambda self: self.expected())
    @rule(data=st.data())
    def remove_and_add_again(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.expected()))
        self.queue.remove_request(request)
        self.queue.add_request(request)
        self.lane(request).remove(request)
        self.lane(request).append(request)

    @invariant()
    def agrees(self) -> None:
        expected = self.expected()
        assert list(self.queue) == expected
        assert len(self.queue) == len(expected)
        assert bool(self.queue) == bool(expected)
        assert all(request in self.queue for request in expected)


QueueAgainstLists.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueueAgainstLists = QueueAgainstLists.TestCase


def test_an_empty_queue_has_no_first_request() -> None:
    queue: WaitingQueue[Request] = WaitingQueue()
    with pytest.raises(IndexError):
        queue.peek_request()
    with pytest.raises(IndexError):
        queue.pop_request()


def test_removed_requests_do_not_pile_up() -> None:
    queue: WaitingQueue[Request] = WaitingQueue()
    queue.add_request(Request(-1))
    for _ in range(10_000):
        request = Request()
        queue.add_request(request)
        queue.remove_request(request)
    assert len(queue._heap) < 200


def test_clear_forgets_all() -> None:
    queue: WaitingQueue[Request] = WaitingQueue()
    queue.add_request(Request())
    queue.clear()
    assert not queue
    assert list(queue) == []
