"""How busy the engine of this server is, by vLLM's own gauges in this process."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import REGISTRY

WAITING, RUNNING, KV = "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"
_FRESH_SECONDS = 0.5
_last: tuple[float, float] = (float("-inf"), 0.0)


def load_of(samples: Iterable[tuple[str, float]]) -> float | None:
    """Return how busy an engine is, 0 to 1: how full its KV cache is, and how many wait for those that run.

    Args:
        samples: names and values of metrics; where several engines tell, the busiest counts.

    Returns:
        None if none of them is vLLM's.
    """
    most: dict[str, float] = {}
    for name, value in samples:
        if name in (WAITING, RUNNING, KV):
            most[name] = max(value, most.get(name, 0.0))
    if not most:
        return None
    waiting, running = most.get(WAITING, 0.0), most.get(RUNNING, 0.0)
    return min(1.0, (most.get(KV, 0.0) + min(1.0, waiting / max(1.0, running))) / 2)


def engine_load() -> float:
    """Return how busy the engine is, 0 to 1, as of the last half second; 0 where it is not known."""
    global _last  # noqa: PLW0603 -- one engine per server, by nature
    now = time.monotonic()
    if now - _last[0] > _FRESH_SECONDS:
        families = REGISTRY.restricted_registry([WAITING, RUNNING, KV]).collect()
        found = load_of((sample.name, sample.value) for family in families for sample in family.samples)
        _last = (now, found or 0.0)
    return _last[1]
