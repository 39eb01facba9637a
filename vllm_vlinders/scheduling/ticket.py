"""A ticket: what the scheduling policies know of one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm_vlinders.scheduling.bands import band_of

DEFAULT_TENANT = "default"


@dataclass(slots=True, eq=False)
class Ticket:
    """Drawn when a request reaches the engine core, kept until it ends; identity is its equality.

    Attributes:
        request: the engine's own object; policies pass it on and do not look inside.
        tenant: who pays.
        priority: on the clients' scale, larger is more urgent.
        arrival: when it reached the engine core, in seconds of the desk's clock.
        since: the moment from which it counts as waiting (`bands.since`).
        prompt_tokens: length of the prompt.
        max_tokens: the most tokens it may generate.
        deadline: the moment by which it must have started; None: never.
        queued: when it last began to wait: at its arrival, or when it was preempted.
        place: its place in the order of arrival; the lower came first.
        preemptions: how often it has been preempted.
        charged: how many of its token positions its tenant has been charged for.
        preempted_at: when it last made room for another.
        band: the number of the band of its priority.
    """

    request: Any
    tenant: str
    priority: int
    arrival: float
    since: float
    prompt_tokens: int
    max_tokens: int
    deadline: float | None = None
    place: int = 0
    preemptions: int = 0
    charged: int = 0
    preempted_at: float = float("-inf")
    queued: float = field(init=False)
    band: int = field(init=False)

    def __post_init__(self) -> None:
        """Find the band, which is asked for often."""
        self.queued = self.arrival
        self.band = band_of(self.priority)
