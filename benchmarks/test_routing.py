"""What a decision costs in an API server: a request body is read, and a model chosen for it, as the server does.

In processor time of one thread. The prompts are of the words below, each one new, so
that no cache of prompts can help. Limits, without and with a few routes of its own: a median of 150 us for a short
prompt, a 99th percentile of 1 ms for one of 500 tokens. What 1,000 routes of
three utterances take is shown beside it.
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from vllm_vlinders.logs import make_logger
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.routing import SemanticRouter
from vllm_vlinders.routing.asked import CHAT, read_asked
from vllm_vlinders.routing.requirements import NONE
from vllm_vlinders.serving.exchange import Exchange, Message
from vllm_vlinders.serving.router import Routing
from vllm_vlinders.settings import LoggingSettings

MODELS = {"strong": {"cost": 0.03}, "cheap": {"cost": 0.002, "speed": "fast"}}
TEXT = (
    "write explain function sort list customer refund summary story house contract data python server why "
    "compare design the of and with for how what river number proof table garden code error message"
)
WORDS = TEXT.split()
SHORT, LONG = 12, 400  # words; the long ones have about 500 tokens
FEW, MANY = 10, 1000
UTTERANCES = 3
ROUNDS = 2000
MEDIAN_SECONDS, P99_SECONDS = 150e-6, 1e-3


def routing(routes: int) -> Routing:
    draw = random.Random(1)
    router = SemanticRouter(
        MODELS,
        routes=[
            {"name": f"r{n}", "utterances": [" ".join(draw.choices(WORDS, k=8)) for _ in range(UTTERANCES)],
             "threshold": 0.99, "models": ["strong"]}
            for n in range(routes)
        ],
    )  # fmt: skip
    return Routing(router, None, make_logger(LoggingSettings()))


async def no_body() -> Message:
    return {"type": "http.request", "body": b""}


@pytest.mark.parametrize("words", [SHORT, LONG], ids=["short", "500 tokens"])
@pytest.mark.parametrize("routes", [0, FEW, MANY])
@pytest.mark.benchmark(timer=time.thread_time)
def test_a_decision_costs_little(routes: int, words: int, benchmark: Any) -> None:
    of, draw = routing(routes), random.Random(2)
    prompts = iter([" ".join(draw.choices(WORDS, k=words)) for _ in range(ROUNDS + 100)])
    seconds: list[float] = []

    def decide(exchange: Exchange, payload: dict[str, Any]) -> None:
        start = time.thread_time()
        routed = of.decide(exchange, read_asked(CHAT, payload), NONE)
        seconds.append(time.thread_time() - start)
        assert routed.why != "failed"

    def request() -> tuple[tuple[Exchange, dict[str, Any]], dict[str, Any]]:
        payload = {"model": "auto", "messages": [{"role": "user", "content": next(prompts)}]}
        return (Exchange({"headers": []}, RequestContext("id"), no_body), payload), {}

    for _ in range(100):
        decide(*request()[0])
    seconds.clear()
    benchmark.pedantic(decide, setup=request, rounds=ROUNDS)
    seconds.sort()
    median, p99 = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    print(
        f"\n{routes} routes of its own, {words} words: median {median * 1e6:.0f} us, p99 {p99 * 1e6:.0f} us"
    )
    if routes < MANY:
        assert words != SHORT or median < MEDIAN_SECONDS
        assert words != LONG or p99 < P99_SECONDS
