"""The meter of an exchange: what it asks of the engine, and what comes back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from vllm_vlinders.metrics.catalogue import GAP_SECONDS


@dataclass(slots=True)
class Meter:
    """What one exchange asks of the engine, and gets.

    Attributes:
        limit: the most tokens of one answer; None: as many as fit.
        prompt: tokens of all prompts that have gone in.
        cached: of those, the tokens that the prefix cache held.
        most_output: tokens that may come out for them.
        output: tokens that have come out.
        model: the name of the adapter that runs or of the upstream's model, or empty for the model itself;
            None: nothing went in.
        priority: of the last request that went in, 0 to 1000.
        first_token: the moment (of ``time.perf_counter``) of the first token, or None.
        queued: the seconds that each of its requests waited in the engine core.
        gaps: for each bucket of `GAP_SECONDS`, how many gaps between outputs; empty: none yet.
        gap_seconds: the sum of those.
        reserve: called with the name of the model that runs (None: not known), `prompt` and `most_output`
            when they have grown; raises `RequestError` where there is no room for so much.
        told: what of `prompt`, `cached` and `output` has been counted already.
        client_left: the moment at which the client closed the connection, or None.
    """

    limit: int | None = None
    prompt: int = 0
    cached: int = 0
    most_output: int = 0
    output: int = 0
    model: str | None = None
    priority: int | None = None
    first_token: float | None = None
    queued: list[float] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    gap_seconds: float = 0.0
    reserve: Callable[[str | None, int, int], None] | None = None
    told: tuple[int, int, int] = (0, 0, 0)
    client_left: float | None = None

    def waited_for_output(self, seconds: float) -> None:
        """Note the time between two outputs of one answer."""
        if not self.gaps:
            self.gaps = [0] * (len(GAP_SECONDS) + 1)
        self.gaps[bisect_left(GAP_SECONDS, seconds)] += 1
        self.gap_seconds += seconds
