"""Stand-ins for the engine: requests, a clock that tests move, and a desk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from vllm_vlinders.scheduling.desk import Desk
from vllm_vlinders.scheduling.tags import Tags, encode
from vllm_vlinders.settings import SchedulerSettings

_ids = count()


@dataclass(eq=False)
class FakeRequest:
    """What scheduling reads of vLLM's request. `urgency` is on the clients' scale."""

    urgency: int = 0
    tenant: str = "default"
    start_within: float | None = None
    num_prompt_tokens: int = 10
    max_tokens: int = 10
    request_id: str = field(default_factory=lambda: f"r{next(_ids)}")
    client_index: int = 0
    num_preemptions: int = 0
    resumable: bool = False
    num_computed_tokens: int = 0
    num_output_tokens: int = 0
    trace_headers: Mapping[str, str] | None = None
    place: int = 0
    arrival: float = 0.0
    queued: float = 0.0

    def __post_init__(self) -> None:
        self.trace_headers = encode(Tags(self.tenant, self.start_within), None)

    @property
    def priority(self) -> int:
        """vLLM's order, the lower first."""
        return -self.urgency


class FakeClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_desk(
    clock: FakeClock | None = None, cached: Mapping[str, int] | None = None, **section: Any
) -> Desk:
    """Return a desk with these settings of the section ``scheduler``; `failures` collects errors."""
    failures: list[Exception] = []
    desk = Desk(
        SchedulerSettings(**section),
        failures.append,
        cached_prefix=lambda ticket: (cached or {}).get(ticket.request.request_id, 0),
        clock=clock or FakeClock(),
    )
    desk.failures = failures  # type: ignore[attr-defined]
    return desk
