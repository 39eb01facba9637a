"""Whether a running request makes room for a more urgent one that waits, and which."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
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

    def __init__(self, settings: PreemptionSettings) -> None:
        self._settings = settings
        self._recent: deque[float] = deque(maxlen=settings.max_per_second)

    def wanted(self, urgent: Ticket, lowest: int, now: float) -> bool:
        """Tell whether `urgent` may displace a request of priority `lowest` at the moment `now`."""
        settings = self._settings
        if not settings.enabled or urgent.priority - lowest < settings.min_gap:
            return False
        return len(self._recent) < settings.max_per_second or now - self._recent[0] >= 1.0

    def choose(self, urgent: Ticket, candidates: Iterable[Candidate], now: float) -> Ticket | None:
        """Return the cheapest victim for `urgent` and count it as preempted at `now`; None if there is none.

        The lowest band first, then the least to compute again, then the latest arrival.
        """
        cool = now - self._settings.cooldown_seconds
        eligible = [
            candidate
            for candidate in candidates
            if urgent.priority - candidate.ticket.priority >= self._settings.min_gap
            and candidate.ticket.preempted_at <= cool
        ]
        if not eligible:
            return None
        cheapest = min(eligible, key=lambda c: (c.ticket.band, c.recomputation, -c.ticket.arrival))
        cheapest.ticket.preempted_at = now
        self._recent.append(now)
        return cheapest.ticket
