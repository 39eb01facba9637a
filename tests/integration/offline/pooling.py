"""Print, as JSON, how requests of a pooling model are ordered, and how one is turned away."""

from __future__ import annotations

import json
import time
from typing import Any

from in_process import make_llm, scheduler_of


def main() -> None:
    """Embed with one slot: five of different priorities, and one whose deadline is short."""
    from vllm import PoolingParams

    from vllm_vlinders.request_context import RequestContext, current_request

    llm = make_llm(max_num_seqs=1, runner="pooling", convert="embed", enable_chunked_prefill=False)
    engine = llm.llm_engine
    ended: dict[str, int] = {}
    for number, priority in enumerate([0, 5, 1000, 0, 50]):
        engine.add_request(
            str(priority) + f"/{number}", f"text {number}", PoolingParams(task="embed"), priority=priority
        )
    token = current_request.set(RequestContext("late", deadline=time.monotonic()))
    engine.add_request("late", "text", PoolingParams(task="embed"))
    current_request.reset(token)
    time.sleep(0.01)
    while engine.has_unfinished_requests():
        for output in engine.step():
            ended[output.request_id] = output.outputs.data.numel()
    engine.step()
    desk: Any = scheduler_of(llm).waiting.desk
    result = {
        "order": [name for name in ended if ended[name]],
        "empty": [name for name in ended if not ended[name]],
        "shed": desk.counts["shed_deadline"],
        "left": len(desk.tickets),
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
