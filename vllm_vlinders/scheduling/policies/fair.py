"""``fair``: bands with aging; in a band tenants by their service; in a tenant by aged priority."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from vllm_vlinders.lazy_heap import LazyHeap
from vllm_vlinders.scheduling.ledger import Ledger, least_served
from vllm_vlinders.scheduling.policies.base import Policy, Surroundings
from vllm_vlinders.scheduling.ticket import Ticket


class Fair(Policy):
    """Virtual token counters (`Ledger`) in each band; a band rises while its oldest request waits.

    It is the band that rises, by one for every ``aging_seconds``, and not the request: so a tenant
    gains nothing by a long queue of its own, and inside the band the shares stay fair. Of the bands
    that have requests, the one is served whose number plus the rise is highest.

    With ``locality`` on, the tenants whose service is within ``slack_tokens`` of the lowest are
    equals, and the request with the longest cached prefix among their first ones is next: the idea of
    DLPM ("Locality-aware Fair Scheduling in LLM Serving", arXiv 2501.14312, section 4), whose
    deficit is the slack here. Of a tenant only requests of equal priority are equals, and nobody
    overtakes one that was preempted or has waited for ``aging_seconds``.
    """

    by_priority: ClassVar[bool] = True
    by_share: ClassVar[bool] = True

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._bands = [
            _Band(surroundings, ledger, number) for number, ledger in enumerate(surroundings.ledgers)
        ]
        self._highest: _Band | None = None

    def add(self, ticket: Ticket) -> None:
        """Take in `ticket`."""
        band = self._bands[ticket.band]
        oldest = band.oldest
        band.add(ticket)
        if band.oldest != oldest:
            self._highest = None

    def discard(self, ticket: Ticket) -> None:
        """Let go of `ticket`."""
        band = self._bands[ticket.band]
        oldest = band.oldest
        band.discard(ticket)
        if band.oldest != oldest:
            self._highest = None

    def first(self) -> Ticket:
        """Return the next ticket of the band that stands highest; of equals, of the higher band.

        All rise alike as time passes, so the moment from which the oldest has waited says it all, and
        which one stands highest is remembered until such a moment changes.

        Raises:
            IndexError: none is held.
        """
        if self._highest is None:
            self._highest = self._find_highest()
        return self._highest.first()

    def most_urgent(self) -> Ticket | None:
        """Return the next ticket of the highest band that has one, whatever other bands have risen to."""
        return next((band.first() for band in reversed(self._bands) if band.oldest != math.inf), None)

    def _find_highest(self) -> _Band:
        highest, lowest = None, math.inf
        for band in self._bands:
            standing = band.oldest - band.lead_seconds
            if standing <= lowest and standing != math.inf:
                highest, lowest = band, standing
        if highest is None:
            message = "no request waits"
            raise IndexError(message)
        return highest

    def rank(self, ticket: Ticket) -> Any:
        """Return the standing of the band, the tenant's service, and the order among the tenant's own."""
        served = self.surroundings.ledgers[ticket.band].served(ticket.tenant)
        band = self._bands[ticket.band]
        return band.oldest - band.lead_seconds, -ticket.band, served, _order(ticket)


def _order(ticket: Ticket) -> tuple[bool, float, int]:
    """Return the sort key within a tenant: those that were preempted, then by aged priority, then by arrival."""
    return not ticket.preemptions, ticket.since, ticket.place


class _Band:
    """The tickets of one band, by tenants, and the tenants by their service."""

    def __init__(self, surroundings: Surroundings, ledger: Ledger, number: int) -> None:
        self.lead_seconds = number * surroundings.settings.aging_seconds
        """How much sooner than the lowest band it counts as waiting."""
        self._ledger = ledger
        self._clock = surroundings.clock
        self._cached_prefix = surroundings.cached_prefix
        self._locality = surroundings.settings.locality
        self._aging_seconds = surroundings.settings.aging_seconds
        self._by_age: LazyHeap[Ticket] = LazyHeap()
        self._tickets: dict[str, LazyHeap[Ticket]] = {}
        self._tenants: LazyHeap[str] = LazyHeap()
        self.oldest = math.inf
        """Since when its oldest ticket waits."""

    def add(self, ticket: Ticket) -> None:
        self._by_age.push(ticket, ticket.queued)
        self.oldest = min(self.oldest, ticket.queued)
        tickets = self._tickets.get(ticket.tenant)
        if tickets is None:
            tickets = self._tickets[ticket.tenant] = LazyHeap()
            self._tenants.push(ticket.tenant, self._ledger.served(ticket.tenant))
        tickets.push(ticket, *_order(ticket))

    def discard(self, ticket: Ticket) -> None:
        self._by_age.discard(ticket)
        if ticket.queued <= self.oldest:
            self.oldest = self._by_age.first_key() if self._by_age else math.inf
        tickets = self._tickets[ticket.tenant]
        tickets.discard(ticket)
        if not tickets:
            del self._tickets[ticket.tenant]
            self._tenants.discard(ticket.tenant)

    def first(self) -> Ticket:
        tenant, lowest = least_served(self._tenants, self._ledger)
        first = self._tickets[tenant].first()
        slack = self._locality.slack_tokens
        if not slack or first.preemptions or self._clock() - first.queued >= self._aging_seconds:
            return first
        return self._longest_prefix(lowest + slack)

    def _longest_prefix(self, limit: float) -> Ticket:
        """Return the first of the candidates with the longest cached prefix."""
        window = self._locality.window
        equals = [t for t in self._tenants.firsts(window) if self._ledger.served(t) <= limit]
        share = max(1, window // len(equals))
        candidates = [ticket for tenant in equals for ticket in _equals(self._tickets[tenant].firsts(share))]
        return max(candidates, key=self._cached_prefix)


def _equals(tickets: list[Ticket]) -> list[Ticket]:
    """Return those of a tenant's next tickets that the first one may let pass."""
    first = tickets[0]
    if first.preemptions:
        return [first]
    return [ticket for ticket in tickets if ticket.priority == first.priority]
