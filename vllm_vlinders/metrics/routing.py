"""What the router counts."""

from __future__ import annotations

import os

from vllm_vlinders.metrics.catalogue import (
    ROUTE_COST,
    ROUTE_COST_OF_STRONGEST,
    ROUTE_DECISIONS,
    ROUTE_FAILURES,
    ROUTE_SECOND,
    ROUTE_SECONDS,
    UPSTREAM_REQUESTS,
    UPSTREAM_UP,
)
from vllm_vlinders.metrics.families import counter, gauge, histogram


def expose() -> None:
    """Show what has no labels from the start: a rate needs the 0 before the first failure."""
    counter(ROUTE_FAILURES)
    histogram(ROUTE_SECONDS)


def count_upstream(model: str, replica: int, outcome: str) -> None:
    """Count a request that was sent to a replica."""
    counter(UPSTREAM_REQUESTS).labels(model, str(replica), outcome).inc()


def set_up(model: str, replica: int, *, up: bool) -> None:
    """Note whether a replica is healthy."""
    gauge(UPSTREAM_UP).labels(model, str(replica)).set(1 if up else 0)


def count_decision(policy: str, route: str, model: str, reason: str, acted: bool) -> None:
    """Count one decision; all labels are names of the settings."""
    counter(ROUTE_DECISIONS).labels(policy, route, model, reason, "yes" if acted else "no").inc()


def observe_seconds(seconds: float) -> None:
    """Note how long a decision took."""
    histogram(ROUTE_SECONDS).observe(seconds)


def count_failure() -> None:
    """Count a decision that failed."""
    counter(ROUTE_FAILURES).inc()


def count_second(first: str, second: str) -> None:
    """Count what both policies would choose."""
    counter(ROUTE_SECOND).labels(first, second).inc()


def count_cost(model: str, cost: float, of_strongest: float) -> None:
    """Count what an answer cost, and what the strongest model had cost."""
    counter(ROUTE_COST).labels(model).inc(cost)
    counter(ROUTE_COST_OF_STRONGEST).labels(model).inc(of_strongest)


def saved() -> dict[str, float]:
    """Return the cost of all routed requests of this server, of all its processes, and the saving."""
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    sums = {ROUTE_COST.name: 0.0, ROUTE_COST_OF_STRONGEST.name: 0.0}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
    cost, strongest = sums.values()
    return {"cost": cost, "cost_of_strongest": strongest, "saved": strongest - cost}
