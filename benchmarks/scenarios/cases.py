"""The scenarios: each runs in a process of its own, for one contender, and returns figures.

``python -m scenarios.cases NAME CONTENDER`` prints them as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from statistics import mean, quantiles
from typing import Any

from scenarios import conversations, two_ranks
from scenarios.engine import Engine

Figures = dict[str, float]
CONTENDERS = ("stock fcfs", "stock priority", "ours")
AGING_SECONDS = 2.0
"""Of the starvation scenario: 100 steps."""


def engine_for(contender: str, slots: int, **more: Any) -> Engine:
    """Return an engine as `contender` runs it."""
    options = {"scheduling_policy": "priority"} if contender == "stock priority" else {}
    return Engine(slots, options, **more)


def level(contender: str, urgency: int) -> int:
    """Return the priority to give for an urgency of 0 to 1000: vLLM's own scale is the other way round."""
    return urgency if contender == "ours" else -urgency


def starvation(contender: str) -> Figures:
    """Sixteen clients without pause at priority 95, four slots; at step 20 come four at priority 0."""
    engine = engine_for(contender, slots=4)
    high, low = level(contender, 95), level(contender, 0)
    for client in range(16):
        engine.add(f"high {client} 0", 32, priority=high)
    while engine.steps < 1500:
        if engine.steps == 20:
            for number in range(4):
                engine.add(f"low {number}", 32, priority=low)
        for name in engine.step():
            kind, client, turn = [*name.split(), "0"][:3]
            if kind == "high":
                engine.add(f"high {client} {int(turn) + 1}", 32, priority=high)
    return {
        "longest wait of low, steps": max(m.wait for m in engine.chosen("low")),
        "tokens of high": sum(m.tokens for m in engine.chosen("high")),
    }


def fairness(contender: str, *, alone: bool = False) -> Figures:
    """A queues 150 requests of 64 tokens, eight slots; B sends 10 of 16 tokens, one after another."""
    engine = engine_for(contender, slots=8)
    if not alone:
        for number in range(150):
            engine.add(f"a {number}", 64, tenant="a")
    while engine.steps < 20:
        engine.step()
    for number in range(10):
        engine.add(f"b {number}", 16, tenant="b")
        while f"b {number}" not in engine.step():
            pass
    engine.drain()
    return {
        "mean TTFT of B, steps": mean(m.wait for m in engine.chosen("b")),
        "tokens a step": sum(m.tokens for m in engine.requests.values()) / engine.steps,
    }


def fairness_alone(contender: str) -> Figures:
    """The same B without A."""
    return fairness(contender, alone=True)


def burst(contender: str) -> Figures:
    """A queues 150 requests of 64 tokens, eight slots; B then sends 10 of 16 tokens at once."""
    engine = engine_for(contender, slots=8)
    for number in range(150):
        engine.add(f"a {number}", 64, tenant="a")
    while engine.steps < 20:
        engine.step()
    for number in range(10):
        engine.add(f"b {number}", 16, tenant="b")
    engine.drain()
    return {
        "mean TTFT of B, steps": mean(m.wait for m in engine.chosen("b")),
        "tokens a step": sum(m.tokens for m in engine.requests.values()) / engine.steps,
    }


def urgent(contender: str) -> Figures:
    """Eight slots full of requests of 400 tokens, more waiting; every 60 steps an urgent one of 16."""
    engine = engine_for(contender, slots=8)
    for number in range(24):
        engine.add(f"low {number}", 400, priority=level(contender, 0))
    for number in range(10):
        for _ in range(60):
            engine.step()
        engine.add(f"urgent {number}", 16, priority=level(contender, 100))
    engine.drain()
    return {
        "mean TTFT of the urgent, steps": mean(m.wait for m in engine.chosen("urgent")),
        "tokens a step": sum(m.tokens for m in engine.requests.values()) / engine.steps,
    }


def mixed(contender: str) -> Figures:
    """Three kinds of traffic by chance on eight slots: chat (95), standard (20), and a batch tenant (0)."""
    engine, draw = engine_for(contender, slots=8), random.Random(3)
    for number in range(60):
        engine.add(f"batch {number}", 200, tenant="batch", priority=level(contender, 0))
    while engine.steps < 2500:
        if draw.random() < 0.04:
            engine.add(f"chat {engine.steps}", 24, tenant="chat", priority=level(contender, 95))
        if draw.random() < 0.04:
            engine.add(f"standard {engine.steps}", 48, tenant="web", priority=level(contender, 20))
        engine.step()
    waits = {kind: [m.wait for m in engine.chosen(kind)] for kind in ("chat", "standard")}
    return {
        **{f"p95 TTFT of {kind}, steps": quantiles(found, n=20)[-1] for kind, found in waits.items()},
        "tokens of batch": sum(m.tokens for m in engine.chosen("batch")),
        "tokens a step": sum(m.tokens for m in engine.requests.values()) / engine.steps,
    }


def plain(contender: str) -> Figures:
    """One tenant, no priorities: 160 requests of 32 tokens on 16 slots, in tokens a second.

    The machine's pace differs from run to run by more than ours takes; what a step takes beside the model does not.
    """
    engine = engine_for(contender, slots=16, model="tiny-deep")
    engine.add("warm-up", 8)
    engine.drain()
    for number in range(160):
        engine.add(f"request {number}", 32)
    begin, steps, model = time.perf_counter(), engine.steps, engine.time_model()
    engine.drain()
    seconds = time.perf_counter() - begin
    return {
        "tokens a second": 160 * 32 / seconds,
        "us a step beside the model": 1e6 * (seconds - sum(model)) / (engine.steps - steps),
    }


if __name__ == "__main__":
    known = globals() | vars(conversations) | vars(two_ranks)
    case = known[sys.argv[1]]
    print("FIGURES " + json.dumps(case(sys.argv[2])))
