"""``round_robin``: tenants in turns, each in the order of arrival."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.lazy_heap import LazyHeap
from vllm_vlinders.scheduling.policies.base import Policy, Surroundings
from vllm_vlinders.scheduling.ticket import Ticket


class RoundRobin(Policy):
    """The tenant whose last turn is longest ago is next; a tenant without a turn yet comes first."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._tickets: dict[str, LazyHeap[Ticket]] = {}
        self._turns: LazyHeap[str] = LazyHeap()
        self._last_turn: dict[str, int] = {}
        self._turn = 0

    def add(self, ticket: Ticket) -> None:
        """Take in `ticket`."""
        tickets = self._tickets.get(ticket.tenant)
        if tickets is None:
            tickets = self._tickets[ticket.tenant] = LazyHeap()
            self._turns.push(ticket.tenant, self._last_turn.get(ticket.tenant, 0))
        tickets.push(ticket, ticket.place)

    def discard(self, ticket: Ticket) -> None:
        """Let go of `ticket`; if it was its tenant's first, that was the tenant's turn."""
        tickets = self._tickets[ticket.tenant]
        had_turn = tickets.first() is ticket and self._turns.first() == ticket.tenant
        tickets.discard(ticket)
        if had_turn:
            self._turn += 1
            self._last_turn[ticket.tenant] = self._turn
        if not tickets:
            del self._tickets[ticket.tenant]
            self._turns.discard(ticket.tenant)
            self._forget_idle()
        elif had_turn:
            self._turns.push(ticket.tenant, self._turn)

    def first(self) -> Ticket:
        """Return the oldest ticket of the tenant whose turn it is.

        Raises:
            IndexError: none is held.
        """
        return self._tickets[self._turns.first()].first()

    def rank(self, ticket: Ticket) -> Any:
        """Return the tenant's last turn, then the place."""
        return self._last_turn.get(ticket.tenant, 0), ticket.place

    def _forget_idle(self) -> None:
        if len(self._last_turn) > 2 * len(self._tickets) + 1024:
            self._last_turn = {
                tenant: turn for tenant, turn in self._last_turn.items() if tenant in self._tickets
            }
