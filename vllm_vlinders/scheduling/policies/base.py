"""The interface of a scheduling policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vllm_vlinders.lazy_heap import LazyHeap
from vllm_vlinders.scheduling.ledger import Ledger
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.settings import SchedulerSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a policy is given.

    Attributes:
        settings: the section ``scheduler``.
        clock: returns seconds; tickets' times are of this clock.
        ledgers: the service of tenants in each band, shared by all queues of an engine core.
        cached_prefix: returns how many tokens of a ticket's prompt have their KV blocks at hand.
    """

    settings: SchedulerSettings
    clock: Callable[[], float]
    ledgers: Sequence[Ledger]
    cached_prefix: Callable[[Ticket], int]


class Policy(ABC):
    """Holds the tickets of waiting requests and knows which is first.

    A policy is called by one thread. It may raise: the queue then goes on in the order of arrival.

    Class attributes:
        by_priority: whether priority rules, so that the least urgent running request is the victim
            when KV blocks run out, and an urgent waiting one may take a running one's slot.
        by_share: whether, besides, a tenant that runs less than its share may take a slot of one
            that runs more.
    """

    by_priority: ClassVar[bool] = False
    by_share: ClassVar[bool] = False

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings

    @abstractmethod
    def add(self, ticket: Ticket) -> None:
        """Take in `ticket`: new, skipped in this step, or of a preempted request."""

    @abstractmethod
    def discard(self, ticket: Ticket) -> None:
        """Let go of `ticket`, which is held."""

    @abstractmethod
    def first(self) -> Ticket:
        """Return the ticket to schedule next, without letting go of it.

        Raises:
            IndexError: none is held.
        """

    @abstractmethod
    def rank(self, ticket: Ticket) -> Any:
        """Return a sort key, comparable with those of the same policy at this moment."""

    def most_urgent(self) -> Ticket | None:
        """Return a ticket of the highest band that has one; None where the policy keeps no bands apart."""
        return None

    def finished(self, ticket: Ticket, output_tokens: int) -> None:  # noqa: B027 - most do not learn
        """Learn from a request that has ended after `output_tokens`."""


class KeyPolicy(Policy):
    """A policy whose order is one number a ticket, read when the ticket is taken in.

    The easy way to a policy of one's own: define `key`.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._heap: LazyHeap[Ticket] = LazyHeap()

    @abstractmethod
    def key(self, ticket: Ticket) -> Any:
        """Return the sort key of `ticket`; the lowest is first, equals by arrival.

        Time passes for all alike: to let waiting count, add a multiple of ``ticket.arrival``.
        """

    def add(self, ticket: Ticket) -> None:
        """Take in `ticket`."""
        self._heap.push(ticket, self.key(ticket), ticket.place)

    def discard(self, ticket: Ticket) -> None:
        """Let go of `ticket`."""
        self._heap.discard(ticket)

    def first(self) -> Ticket:
        """Return the ticket with the lowest key.

        Raises:
            IndexError: none is held.
        """
        return self._heap.first()

    def rank(self, ticket: Ticket) -> Any:
        """Return key and place."""
        return self.key(ticket), ticket.place
