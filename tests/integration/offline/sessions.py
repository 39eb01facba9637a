"""Print, as JSON, what sessions and others find in a prefix cache that one-off requests overflow."""

from __future__ import annotations

import json
import random
from itertools import count
from typing import Any

from in_process import make_llm, scheduler_of

BLOCK, BLOCKS = 32, 30
TENANT = "acme"
_names = count()


class Engine:
    """An engine with few KV blocks, and requests as the API server makes them."""

    def __init__(self) -> None:
        self.llm = make_llm(max_num_seqs=4, block_size=BLOCK, num_gpu_blocks_override=BLOCKS)
        self.scheduler = scheduler_of(self.llm)
        self.order: list[str] = []
        self.cached: dict[str, int] = {}

    @property
    def free(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    @property
    def retention(self) -> Any:
        return self.scheduler.kv_cache_manager.block_pool.free_block_queue.retention

    def add(self, prompt: list[int], session: str | None = None, tokens: int = 4) -> str:
        from vllm import SamplingParams

        from vllm_vlinders.request_context import RequestContext, current_request

        name = f"request {next(_names)}"
        token = current_request.set(RequestContext(name, tenant=TENANT, session=session))
        try:
            parameters = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
            self.llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, parameters)
        finally:
            current_request.reset(token)
        return name

    def step(self) -> None:
        for output in self.llm.llm_engine.step():
            self.cached[output.request_id] = output.num_cached_tokens
            if output.finished:
                self.order.append(output.request_id)

    def drain(self) -> None:
        while self.llm.llm_engine.has_unfinished_requests():
            self.step()

    def hits(self, prompt: list[int], session: str | None = None) -> int:
        """Run one request and return how many tokens of its prompt were cached."""
        name = self.add(prompt, session)
        self.drain()
        return self.cached[name]

    def overflow(self) -> None:
        for _ in range(10):
            self.hits(some_tokens(400))


def some_tokens(number: int) -> list[int]:
    return [random.randrange(10, 2000) for _ in range(number)]


def main() -> None:
    """Say what is found after an overflow, after a reset, in which order, and what is left after chaos."""
    engine = Engine()
    start = engine.free
    talk, other = some_tokens(200), some_tokens(200)
    engine.hits(talk, "talk")
    engine.hits(other)
    engine.overflow()
    result: dict[str, Any] = {"session": engine.hits(talk, "talk"), "other": engine.hits(other)}

    slot = [engine.add(some_tokens(20), tokens=30) for _ in range(4)]
    engine.step()
    cold = engine.add(some_tokens(200))
    hot = engine.add([*talk, *some_tokens(40)], "talk")
    engine.drain()
    result["hot overtakes"] = engine.order.index(hot) < engine.order.index(cold)
    result["slots"] = len(slot)

    engine.llm.reset_prefix_cache()
    result["after reset"] = [engine.hits(talk, "talk"), engine.free == start]

    result["preemptions"] = chaos(engine)
    result["left"] = [len(engine.scheduler.requests), start - engine.free]
    result["within budget"] = engine.retention.held <= engine.retention.most
    engine.retention._ttl = 0.0  # as if all the time had passed
    engine.overflow()
    result["held after its time"] = engine.retention.held
    print("RESULT " + json.dumps(result))


def chaos(engine: Engine) -> int:
    """Run sessions, others and aborts for more blocks than there are; return the most preemptions of one."""
    draw, alive, preemptions = random.Random(5), [], 0
    said: dict[str, list[int]] = {f"s{number}": some_tokens(20) for number in range(6)}
    arrivals = 100
    while arrivals or engine.llm.llm_engine.has_unfinished_requests():
        arrivals = max(0, arrivals - 1)
        if arrivals and draw.random() < 0.25 and len(alive) < 12:
            session = draw.choice(list(said))
            said[session] = [*said[session], *some_tokens(40)][-380:]
            alive.append(engine.add(said[session], session, tokens=draw.randrange(1, 30)))
        if arrivals and draw.random() < 0.1:
            alive.append(engine.add(some_tokens(draw.randrange(60, 100)), tokens=280))
        if arrivals and alive and draw.random() < 0.03:
            engine.llm.llm_engine.abort_request([alive.pop(draw.randrange(len(alive)))])
        engine.step()
        preemptions = max([preemptions, *(r.num_preemptions for r in engine.scheduler.requests.values())])
        alive = [name for name in alive if name not in engine.order]
    return preemptions


if __name__ == "__main__":
    main()
