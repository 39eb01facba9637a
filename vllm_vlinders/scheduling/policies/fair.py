"""``fair``: bands; within a band tenants by their service; within a tenant by aged priority."""

from __future__ import annotations

from typing import Any, ClassVar

from vllm_vlinders.scheduling.bands import OVERDUE
from vllm_vlinders.scheduling.lazy_heap import LazyHeap
from vllm_vlinders.scheduling.ledger import Ledger, refreshed_key
from vllm_vlinders.scheduling.policies.base import Policy, Surroundings
from vllm_vlinders.scheduling.ticket import Ticket


class Fair(Policy):
    """Virtual token counters (`Ledger`) in each band; waiting lifts a request from band to band.

    With ``locality`` on, the tenants whose service is within ``slack_tokens`` of the lowest are
    equals, and the request with the longest cached prefix among their first ones is next: the idea of
    DLPM ("Locality-aware Fair Scheduling in LLM Serving", arXiv 2501.14312, section 4), whose
    deficit is the slack here.
    """

    by_priority: ClassVar[bool] = True

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._bands = [_Band(surroundings) for _ in range(OVERDUE + 1)]
        self._band_of: dict[Ticket, int] = {}
        self._promotions: LazyHeap[Ticket] = LazyHeap()
        self._aging_seconds = surroundings.settings.aging_seconds

    def add(self, ticket: Ticket) -> None:
        """Take in `ticket`, in the band it has reached by now."""
        number, now = ticket.band, self.surroundings.clock()
        while number < OVERDUE and self._leaves(ticket, number) <= now:
            number += 1
        self._enter(ticket, number)

    def discard(self, ticket: Ticket) -> None:
        """Let go of `ticket`."""
        self._bands[self._band_of.pop(ticket)].discard(ticket)
        self._promotions.discard(ticket)

    def first(self) -> Ticket:
        """Return the next ticket of the highest band that has any.

        Raises:
            IndexError: none is held.
        """
        self._promote()
        for band in reversed(self._bands):
            if band:
                return band.first()
        message = "no request waits"
        raise IndexError(message)

    def rank(self, ticket: Ticket) -> Any:
        """Return band, lane, the tenant's service, and the moment it counts as waiting from."""
        served = self.surroundings.ledger.served(ticket.tenant)
        band = self._band_of.get(ticket, ticket.band)
        return -band, not ticket.resumed, 0 if ticket.resumed else served, ticket.since, ticket.place

    def _promote(self) -> None:
        if not self._promotions:
            return
        now = self.surroundings.clock()
        while self._promotions and self._promotions.first_key() <= now:
            ticket = self._promotions.first()
            self._promotions.discard(ticket)
            number = self._band_of[ticket]
            self._bands[number].discard(ticket)
            self._enter(ticket, number + 1)

    def _enter(self, ticket: Ticket, number: int) -> None:
        self._band_of[ticket] = number
        self._bands[number].add(ticket)
        if number < OVERDUE:
            self._promotions.push(ticket, self._leaves(ticket, number))

    def _leaves(self, ticket: Ticket, number: int) -> float:
        """Return when `ticket` has waited itself out of band `number`."""
        return ticket.since + (number + 1) * self._aging_seconds


class _Band:
    """The tickets of one band: those that resume, by aged priority; then tenants by their service."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._ledger: Ledger = surroundings.ledger
        self._cached_prefix = surroundings.cached_prefix
        self._locality = surroundings.settings.locality
        self._resumed: LazyHeap[Ticket] = LazyHeap()
        self._tickets: dict[str, LazyHeap[Ticket]] = {}
        self._tenants: LazyHeap[str] = LazyHeap()

    def __bool__(self) -> bool:
        return bool(self._resumed) or bool(self._tickets)

    def add(self, ticket: Ticket) -> None:
        if ticket.resumed:
            self._resumed.push(ticket, (ticket.since, ticket.place))
            return
        tickets = self._tickets.get(ticket.tenant)
        if tickets is None:
            tickets = self._tickets[ticket.tenant] = LazyHeap()
            self._tenants.push(ticket.tenant, self._ledger.served(ticket.tenant))
        tickets.push(ticket, (ticket.since, ticket.place))

    def discard(self, ticket: Ticket) -> None:
        if ticket in self._resumed:
            self._resumed.discard(ticket)
            return
        tickets = self._tickets[ticket.tenant]
        tickets.discard(ticket)
        if not tickets:
            del self._tickets[ticket.tenant]
            self._tenants.discard(ticket.tenant)

    def first(self) -> Ticket:
        if self._resumed:
            return self._resumed.first()
        lowest = refreshed_key(self._tenants, self._ledger)
        if not self._locality.slack_tokens:
            return self._tickets[self._tenants.first()].first()
        return self._longest_prefix(lowest + self._locality.slack_tokens)

    def _longest_prefix(self, limit: float) -> Ticket:
        """Return the first of the candidates with the longest cached prefix."""
        window = self._locality.window
        equals = [t for t in self._tenants.firsts(window) if self._ledger.served(t) <= limit]
        share = max(1, window // len(equals))
        candidates = [ticket for tenant in equals for ticket in self._tickets[tenant].firsts(share)]
        return max(candidates, key=self._cached_prefix)
