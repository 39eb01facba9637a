"""Print, as JSON, how an urgent request gets the slot of a running one, in a mode given by name."""

from __future__ import annotations

import json
import sys
from typing import Any

from in_process import LORA, make_llm, scheduler_of, texts

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no prefix caching": {"enable_prefix_caching": False},
    "short chunks": {"max_num_batched_tokens": 32, "enable_chunked_prefill": True},
    "n-gram speculation": {
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
    },
    "lora": {"enable_lora": True, "max_loras": 1, "max_lora_rank": 8},
    "structured output": {},
    "streaming input": {},
}
SLOTS = 2
LONG, SHORT = 120, 8


def parameters_of(mode: str, tokens: int) -> Any:
    """Return sampling parameters without chance; in the mode of that name, bound to a grammar."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    grammar = StructuredOutputsParams(regex="[a-z ]{400,500}") if mode == "structured output" else None
    return SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, structured_outputs=grammar)


def expect_more_input(requests: list[Any], *, expected: bool) -> None:
    """Mark requests as those of a client that streams its input."""
    for request in requests:
        request.resumable = expected


def main(mode: str) -> None:
    """Run all alone; then let an urgent one arrive while long ones hold every slot."""
    from vllm.lora.request import LoRARequest

    llm = make_llm(max_num_seqs=SLOTS, **MODES[mode])
    engine, scheduler = llm.llm_engine, scheduler_of(llm)
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    adapter = LoRARequest("code", 1, str(LORA)) if mode == "lora" else None
    prompts = {"long 0": LONG, "long 1": LONG, "waiting": SHORT, "urgent": SHORT}
    alone = {
        name: texts(llm.generate([name], parameters_of(mode, tokens), lora_request=adapter, use_tqdm=False))[
            0
        ]
        for name, tokens in prompts.items()
    }
    ended: dict[str, list[int]] = {}

    def add(name: str, priority: int) -> None:
        engine.add_request(
            name, name, parameters_of(mode, prompts[name]), priority=priority, lora_request=adapter
        )

    def step() -> None:
        for output in engine.step():
            if output.finished:
                ended[output.request_id] = list(output.outputs[0].token_ids)

    for name in ("long 0", "long 1"):
        add(name, 0)
    while scheduler.get_request_counts()[0] < SLOTS:
        step()
    for _ in range(20):
        step()
    expect_more_input(scheduler.running, expected=mode == "streaming input")
    add("waiting", 0)
    add("urgent", 100)
    for _ in range(10):
        step()
    early = scheduler.waiting.desk.counts["preemptions_slots"]
    expect_more_input(scheduler.running, expected=False)
    while engine.has_unfinished_requests():
        step()
    step()  # in which the scheduler learns who has ended
    desk = scheduler.waiting.desk
    result = {
        "order": list(ended),
        "as_alone": ended == alone,
        "preemptions in 10 steps": early,
        "preemptions": desk.counts["preemptions_slots"],
        "left": [len(desk.tickets), free - scheduler.kv_cache_manager.block_pool.get_num_free_blocks()],
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
