"""The queue of waiting requests, with the operations that vLLM's scheduler asks of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from vllm_vlinders.scheduling.desk import Desk, Waiting
from vllm_vlinders.scheduling.policies import Policy
from vllm_vlinders.scheduling.ticket import Ticket

R = TypeVar("R", bound=Waiting)
T = TypeVar("T")


class WaitingQueue(Generic[R]):
    """Requests in the order of the desk's policy.

    A request that is added stands behind its equals; one that is prepended (skipped in this step, or
    preempted) before them. What `peek_request` has returned is what `pop_request` returns, although
    time passes, unless the queue has changed or a new step has begun (`Desk.step`) in between.

    If the policy raises, the queue goes on in the order of arrival: no request is lost.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._policy: Policy = desk.new_policy()
        self._held: dict[R, Ticket] = {}
        self._head: Ticket | None = None
        self._head_step = 0
        self._put_first: Ticket | None = None

    @property
    def by_priority(self) -> bool:
        """Tell whether priority rules (`Policy.by_priority`)."""
        return self._policy.by_priority

    @property
    def by_share(self) -> bool:
        """Tell whether tenants have shares of the slots (`Policy.by_share`)."""
        return self._policy.by_share

    def add_request(self, request: R) -> None:
        """Put `request` behind its equals."""
        self._take_in(request, self.desk.arrive(request))

    def prepend_request(self, request: R) -> None:
        """Put `request` before its equals."""
        self._take_in(request, self.desk.come_back(request))

    def prepend_requests(self, requests: Iterable[R]) -> None:
        """Prepend each of `requests`, so that the last one stands first among its equals."""
        for request in list(requests):
            self.prepend_request(request)

    def peek_request(self) -> R:
        """Return the first request and leave it.

        Raises:
            IndexError: the queue is empty.
        """
        request: R = self.head().request
        return request

    def pop_request(self) -> R:
        """Remove and return the first request.

        Raises:
            IndexError: the queue is empty.
        """
        request: R = self.head().request
        self._let_go(request)
        return request

    def remove_request(self, request: R) -> None:
        """Remove `request`.

        Raises:
            ValueError: it is not in the queue.
        """
        if request not in self._held:
            message = f"{request!r} is not waiting"
            raise ValueError(message)
        self._let_go(request)

    def remove_requests(self, requests: Iterable[R]) -> None:
        """Remove those of `requests` that are in the queue."""
        for request in requests:
            if request in self._held:
                self._let_go(request)

    def clear(self) -> None:
        """Remove all requests."""
        self.remove_requests(list(self._held))

    def head(self) -> Ticket:
        """Return the ticket of the first request.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._held:
            message = "no request waits"
            raise IndexError(message)
        if self._head is None or self._head_step != self.desk.step:
            self._put_first = None
            self._head = self._ask(self._first)
            self._head_step = self.desk.step
        return self._head

    def most_urgent(self) -> Ticket | None:
        """Return the ticket of the highest band where the policy keeps bands apart; the queue is not empty."""
        return self._ask(self._policy_most_urgent)

    def put_first(self, ticket: Ticket) -> None:
        """Make a waiting ticket the first for this step, whatever the policy says."""
        self._put_first = self._head = ticket
        self._head_step = self.desk.step

    def outranks(self, other: WaitingQueue[R]) -> bool:
        """Tell whether the first request here comes before the first one of `other`; none is empty."""
        if self._has_put_first() or other._has_put_first():
            return self._has_put_first()
        return bool(self._ask(lambda: self._policy.rank(self.head()) < other._rank_of_head()))

    def __contains__(self, request: Any) -> bool:
        """Tell whether `request` is in the queue."""
        return request in self._held

    def __bool__(self) -> bool:
        """Tell whether any request is in the queue."""
        return bool(self._held)

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._held)

    def __iter__(self) -> Iterator[R]:
        """Iterate over the requests in order, over a copy: the queue may change meanwhile."""
        tickets = self._ask(lambda: sorted(self._held.values(), key=self._policy.rank))
        return iter([ticket.request for ticket in tickets])

    def __getitem__(self, index: int) -> R:
        """Return the request at `index` of the order; linear, for inspection."""
        return list(self)[index]

    def _has_put_first(self) -> bool:
        return self._put_first is not None and self.head() is self._put_first

    def _policy_most_urgent(self) -> Ticket | None:
        return self._policy.most_urgent()

    def _rank_of_head(self) -> Any:
        return self._policy.rank(self.head())

    def _take_in(self, request: R, ticket: Ticket) -> None:
        self._held[request] = ticket
        self._head = None
        try:
            self._policy.add(ticket)
        except Exception as error:  # noqa: BLE001 - a company's policy may raise anything
            self._go_on_by_arrival(error)

    def _let_go(self, request: R) -> None:
        ticket = self._held.pop(request)
        self._head = None
        try:
            self._policy.discard(ticket)
        except Exception as error:  # noqa: BLE001 - a company's policy may raise anything
            self._go_on_by_arrival(error)
        self.desk.leave(ticket)

    def _first(self) -> Ticket:
        ticket = self._policy.first()
        if self._held.get(ticket.request) is not ticket:
            message = f"{type(self._policy).__name__}.first returned a request that does not wait"
            raise ValueError(message)
        return ticket

    def _ask(self, question: Callable[[], T]) -> T:
        """Return the answer of the policy; if it raises, of the one that takes its place."""
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - a company's policy may raise anything
            self._go_on_by_arrival(error)
            return question()

    def _go_on_by_arrival(self, error: Exception) -> None:
        """Replace the policy that raised `error`."""
        self.desk.policy_failed(self._policy, error)
        self._head = None
        self._policy = self.desk.by_arrival()
        for ticket in self._held.values():
            self._policy.add(ticket)
