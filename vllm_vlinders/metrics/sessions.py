"""What API servers and engine cores count of sessions."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_vlinders.metrics.catalogue import (
    SESSION_DROPPED,
    SESSION_HITS,
    SESSION_KEPT,
    SESSION_PROMPT,
    SESSION_RANKS,
)
from vllm_vlinders.metrics.engine_counts import EngineCounts
from vllm_vlinders.metrics.families import counter


def count_rank(what: str) -> None:
    """Count one request by where it went; `what` is one of few words."""
    counter(SESSION_RANKS).labels(what).inc()


def show_tokens(file: EngineCounts, of: str, prompt: int, hits: int) -> None:
    """Write the sums of an engine core: prompt tokens, and those that were cached, of ``sessions`` or ``others``."""
    file.set(SESSION_PROMPT, of, prompt)
    file.set(SESSION_HITS, of, hits)


def show_blocks(file: EngineCounts, counts: Mapping[str, int]) -> None:
    """Write how many blocks an engine core has kept and dropped so far."""
    file.set(SESSION_KEPT, "", counts.get("kept", 0))
    for name, blocks in counts.items():
        if name.startswith("dropped_"):
            file.set(SESSION_DROPPED, name.removeprefix("dropped_"), blocks)
