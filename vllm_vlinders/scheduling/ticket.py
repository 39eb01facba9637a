"""A ticket: what the scheduling policies know of one request."""

from __future__ import annotations

from dataclasses import dataclass
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
        place: its place in the order of arrival; the lower came first.
        resumed: it ran, was preempted, and waits to go on.
        charged: how many of its token positions its tenant has been charged for.
        preempted_at: when it last made room for a more urgent one.
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
    resumed: bool = False
    charged: int = 0
    preempted_at: float = float("-inf")

    @property
    def band(self) -> int:
        """Return the number of the band of its priority."""
        return band_of(self.priority)
