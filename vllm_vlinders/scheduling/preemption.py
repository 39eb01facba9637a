"""Whether a running request makes room for one that waits, and which.

For one of two reasons: the waiting one is far more urgent; or, under a policy of fair shares, its
tenant runs less than its share of the slots while another tenant of no higher band runs more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.settings import PreemptionSettings


@dataclass(frozen=True, slots=True)
class Candidate:
    """A running request that may be preempted.

    Attributes:
        ticket: its ticket.
        recomputation: how many tokens would have to be computed again, at best.
    """

    ticket: Ticket
    recomputation: int


class Preemption:
    """Chooses victims: seldom, and never the same one twice within its cool-down."""

    def __init__(self, settings: PreemptionSettings, weight: Callable[[str], float]) -> None:
        self._settings = settings
        self._weight = weight
        self._recent: deque[float] = deque(maxlen=settings.max_per_second)

    def may(self, now: float) -> bool:
        """Tell whether there may be a preemption at the moment `now`."""
        recent, settings = self._recent, self._settings
        return settings.enabled and (len(recent) < settings.max_per_second or now - recent[0] >= 1.0)

    def urgent(self, waiting: Ticket, running: Ticket) -> bool:
        """Tell whether `waiting` is so much more urgent that `running` makes room for it."""
        return waiting.priority - running.priority >= self._settings.min_gap

    def over_share(self, waiting: Ticket, running: Iterable[Ticket], slots: int) -> set[str]:
        """Return the tenants that owe the tenant of `waiting` one of their slots.

        A tenant's share are the slots times its weight, over the weights of all who run or wait here.
        """
        counts = Counter(ticket.tenant for ticket in running)
        tenants = {*counts, waiting.tenant}
        slot = slots / sum(map(self._weight, tenants))
        if counts[waiting.tenant] + 1 > slot * self._weight(waiting.tenant):
            return set()
        return {tenant for tenant in counts if counts[tenant] > slot * self._weight(tenant)}

    def choose(
        self, candidates: Iterable[Candidate], eligible: Callable[[Ticket], bool], now: float
    ) -> Ticket | None:
        """Return the cheapest victim and count it as preempted at `now`; None if there is none.

        The lowest band first, then the least to compute again, then the latest arrival.

        Args:
            candidates: may be preempted.
            eligible: tells which of them have a reason to make room.
            now: of the desk's clock.
        """
        cool = now - self._settings.cooldown_seconds
        open_to = [c for c in candidates if c.ticket.preempted_at <= cool and eligible(c.ticket)]
        if not open_to:
            return None
        cheapest = min(open_to, key=lambda c: (c.ticket.band, c.recomputation, -c.ticket.arrival))
        cheapest.ticket.preempted_at = now
        self._recent.append(now)
        return cheapest.ticket
