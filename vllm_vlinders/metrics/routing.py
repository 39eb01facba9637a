"""What the router counts."""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

_COST, _STRONGEST = "vlinders_route_cost", "vlinders_route_cost_of_strongest"
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)


@cache
def _decisions() -> Counter:
    """Made on first use: prometheus_client must be imported after vLLM set its multiprocess directory."""
    return Counter(
        "vlinders_route_decisions",
        "Decisions of the router; acted: whether that model was asked to answer.",
        ["policy", "route", "model", "reason", "acted"],
    )


@cache
def _seconds() -> Histogram:
    return Histogram("vlinders_route_seconds", "Time that a decision took.", buckets=_SECONDS)


@cache
def _failures() -> Counter:
    return Counter(
        "vlinders_route_failures", "Decisions that failed with an error, so that the default model answered."
    )


@cache
def _agreement() -> Counter:
    return Counter(
        "vlinders_route_second",
        "What the first and the second policy would choose for the same request.",
        ["first", "second"],
    )


@cache
def _cost() -> Counter:
    return Counter(_COST, "Cost of routed requests at the prices of routing.models.", ["model"])


@cache
def _cost_of_strongest() -> Counter:
    return Counter(_STRONGEST, "What the same requests had cost with the strongest model.", ["model"])


@cache
def _upstream_requests() -> Counter:
    return Counter(
        "vlinders_route_upstream_requests",
        "Requests sent to replicas of upstreams, by how that ended: answered, failed (the next was asked), "
        "error, broken_off, client_left.",
        ["model", "replica", "outcome"],
    )


@cache
def _upstream_up() -> Gauge:
    return Gauge(
        "vlinders_route_upstream_up",
        "1 while a replica of an upstream is healthy, for every API server process, else 0.",
        ["model", "replica"],
        multiprocess_mode="livemin",
    )


def count_upstream(model: str, replica: int, outcome: str) -> None:
    """Count a request that was sent to a replica."""
    _upstream_requests().labels(model, str(replica), outcome).inc()


def set_up(model: str, replica: int, *, up: bool) -> None:
    """Note whether a replica is healthy."""
    _upstream_up().labels(model, str(replica)).set(1 if up else 0)


def count_decision(policy: str, route: str, model: str, reason: str, acted: bool) -> None:
    """Count one decision; all labels are names of the settings."""
    _decisions().labels(policy, route, model, reason, "yes" if acted else "no").inc()


def observe_seconds(seconds: float) -> None:
    """Note how long a decision took."""
    _seconds().observe(seconds)


def count_failure() -> None:
    """Count a decision that failed."""
    _failures().inc()


def count_second(first: str, second: str) -> None:
    """Count what both policies would choose."""
    _agreement().labels(first, second).inc()


def count_cost(model: str, cost: float, of_strongest: float) -> None:
    """Count what an answer cost, and what the strongest model had cost."""
    _cost().labels(model).inc(cost)
    _cost_of_strongest().labels(model).inc(of_strongest)


def saved() -> dict[str, float]:
    """Return the cost of all routed requests of this server, of all its processes, and the saving."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    names = {f"{_COST}_total": 0.0, f"{_STRONGEST}_total": 0.0}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name in names:
                names[sample.name] += sample.value
    cost, strongest = names.values()
    return {"cost": cost, "cost_of_strongest": strongest, "saved": strongest - cost}
