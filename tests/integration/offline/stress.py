"""Print, as JSON, the account of many random requests: how each ended, and what was left behind.

Priorities, tenants, lengths, deadlines and shared prefixes are drawn by a seed; some clients leave.
The clock counts engine steps, so that what happens does not depend on the machine.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from typing import Any

from in_process import make_llm, scheduler_of

SLOTS = 16
BLOCKS = 40
IN_FLIGHT = 300
BURST, BURST_CHANCE = 100, 0.01
STEP_SECONDS = 0.005


class StepClock:
    """Stands in for ``time.monotonic``."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return 1000 + self.steps * STEP_SECONDS


class Crowd:
    """Draws requests, counts how they end."""

    def __init__(self, llm: Any, total: int) -> None:
        self.engine = llm.llm_engine
        self.total = total
        self.draw = random.Random(7)
        self.added = 0
        self.open: dict[str, str] = {}
        self.ends: Counter[str] = Counter()

    def add(self) -> None:
        """Add one request, as the API server would for a request with these headers."""
        from vllm import SamplingParams

        from vllm_vlinders.request_context import RequestContext, current_request

        draw, name = self.draw, str(self.added)
        self.added += 1
        deadline = time.monotonic() + draw.choice([0.02, 0.2, 5]) if draw.random() < 0.1 else None
        context = RequestContext(
            name, tenant=draw.choice(["a", "b", "c", None]), priority=draw.choice([0, 0, 0, 20, 95, 500]),
            deadline=deadline,
        )  # fmt: skip
        prompt = f"shared words of group {draw.randint(0, 5)} " * draw.randint(1, 6) + name
        parameters = SamplingParams(max_tokens=draw.randint(1, 12), temperature=0, ignore_eos=True)
        token = current_request.set(context)
        try:
            self.open[self.engine.add_request(name, prompt, parameters)] = name
        finally:
            current_request.reset(token)

    def leave(self) -> None:
        """Let one client disconnect."""
        name = self.draw.choice(list(self.open))
        self.engine.abort_request([name], internal=True)
        del self.open[name]
        self.ends["left"] += 1

    def step(self) -> None:
        """Let the engine step; note who has ended."""
        by_name = {name: internal for internal, name in self.open.items()}
        for output in self.engine.step():
            if output.finished:
                (answer,) = output.outputs
                del self.open[by_name[output.request_id]]
                reason = answer.stop_reason if answer.finish_reason == "error" else answer.finish_reason
                self.ends[str(reason).rpartition(":")[0] or str(reason)] += 1


def main(total: int) -> None:
    """Keep up to `IN_FLIGHT` requests in the engine until `total` have come and ended."""
    time.monotonic = clock = StepClock()
    llm = make_llm(max_num_seqs=SLOTS, block_size=32, num_gpu_blocks_override=BLOCKS)
    scheduler = scheduler_of(llm)
    pool = scheduler.kv_cache_manager.block_pool
    free = pool.get_num_free_blocks()
    crowd = Crowd(llm, total)
    while crowd.open or crowd.added < total:
        arriving = BURST if crowd.draw.random() < BURST_CHANCE else crowd.draw.randint(0, 6)
        for _ in range(min(arriving, IN_FLIGHT - len(crowd.open), total - crowd.added)):
            crowd.add()
        if crowd.open and crowd.draw.random() < 0.2:
            crowd.leave()
        crowd.step()
        clock.steps += 1
    for _ in range(3):
        llm.llm_engine.step()
    desk = scheduler.waiting.desk
    result = {
        "ends": crowd.ends,
        "counts": dict(desk.counts),
        "left": {
            "tickets": len(desk.tickets),
            "blocks": free - pool.get_num_free_blocks(),
            "waiting": len(scheduler.waiting)
            + len(scheduler.running)
            + sum(len(ledger._waiting) for ledger in desk.ledgers),
            "deadlines": len(desk._deadlines),
        },
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]))
