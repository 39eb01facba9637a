"""What a decision of the router costs, in processor time of one thread.

Prompts of the words below, each one new, so that no cache of prompts can help. Limit: a median of 250 us for a short
prompt. A thousand routes of ten utterances each are shown beside it.
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from vllm_vlinders.routing import SemanticRouter
from vllm_vlinders.routing.asked import Asked
from vllm_vlinders.routing.facts import Caller

MODELS = {"strong": {"cost": 0.03}, "cheap": {"cost": 0.002, "speed": "fast"}}
TEXT = (
    "write explain function sort list customer refund summary story house contract data python server why "
    "compare design the of and with for how what river number proof table garden code error message"
)
WORDS = TEXT.split()
SHORT, LONG = 12, 400  # words; the long ones have about 500 tokens
MANY = 1000
ROUNDS = 2000
MEDIAN_SECONDS = 250e-6


def router(routes: int) -> SemanticRouter:
    draw = random.Random(1)
    return SemanticRouter(
        MODELS,
        routes=[
            {"name": f"r{n}", "utterances": [" ".join(draw.choices(WORDS, k=8)) for _ in range(10)],
             "threshold": 0.99, "models": ["strong"]}
            for n in range(routes)
        ],
    )  # fmt: skip


@pytest.mark.parametrize("words", [SHORT, LONG], ids=["short", "500 tokens"])
@pytest.mark.parametrize("routes", [0, 10, MANY])
@pytest.mark.benchmark(timer=time.thread_time)
def test_a_decision_costs_little(routes: int, words: int, benchmark: Any) -> None:
    of, draw = router(routes), random.Random(2)
    prompts = iter([" ".join(draw.choices(WORDS, k=words)) for _ in range(ROUNDS + 100)])
    seconds: list[float] = []

    def decide(prompt: str) -> None:
        start = time.thread_time()
        assert of.policy.decide(of.facts(Asked(prompt), Caller())) is not None
        seconds.append(time.thread_time() - start)

    for _ in range(100):
        decide(next(prompts))
    seconds.clear()
    benchmark.pedantic(decide, setup=lambda: ((next(prompts),), {}), rounds=ROUNDS)
    seconds.sort()
    median, p99 = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    print(
        f"\n{routes} routes of its own, {words} words: median {median * 1e6:.0f} us, p99 {p99 * 1e6:.0f} us"
    )
    if words == SHORT and routes < MANY:
        assert median < MEDIAN_SECONDS
