"""Print, as JSON, what becomes of requests when the engine is reset and paused beneath them."""

from __future__ import annotations

import json
from typing import Any

from in_process import make_llm, scheduler_of, texts

NAMES = [f"request {n}" for n in range(6)]


def main() -> None:
    """Run all undisturbed; then with a reset of the running ones, and with a pause."""
    from vllm import SamplingParams
    from vllm.v1.core.sched.interface import PauseState

    llm = make_llm(max_num_seqs=3)
    engine, scheduler = llm.llm_engine, scheduler_of(llm)
    parameters = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    alone = texts(llm.generate(NAMES, parameters, use_tqdm=False))
    ended: dict[str, list[int]] = {}

    def steps(count: int) -> None:
        for _ in range(count):
            for output in engine.step():
                if output.finished:
                    ended[output.request_id] = list(output.outputs[0].token_ids)

    def add(priority: int = 0) -> None:
        ended.clear()
        for name in NAMES:
            engine.add_request(name, name, parameters, priority=priority)

    def disturbed(act: Any) -> bool:
        add()
        steps(10)
        act()
        while engine.has_unfinished_requests():
            steps(1)
        return [ended[name] for name in NAMES] == alone

    def pause() -> None:
        scheduler.set_pause_state(PauseState.PAUSED_NEW)
        engine.add_request("urgent", "urgent", parameters, priority=1000)
        steps(60)
        found["ran in the pause"] = "urgent" in ended
        found["waiting in the pause"] = scheduler.get_request_counts()[1]
        scheduler.set_pause_state(PauseState.UNPAUSED)

    found: dict[str, Any] = {}
    found["reset"] = disturbed(lambda: scheduler.reset_prefix_cache(reset_running_requests=True))
    found["pause"] = disturbed(pause)
    add()
    steps(5)
    engine.abort_request(NAMES)
    steps(2)
    found["left"] = [len(scheduler.waiting.desk.tickets), *scheduler.get_request_counts()]
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
