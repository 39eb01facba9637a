"""Print, as JSON, who is preempted when KV blocks run out, and whether answers are as alone."""

from __future__ import annotations

import json
from typing import Any

from in_process import after_each_step, make_llm, scheduler_of, texts

URGENT = 3
PRIORITIES = [0, 0, 0, 100]
"""The urgent one arrives last, where vLLM's first-come-first-served would preempt it first."""


def main() -> None:
    """Run each prompt alone, then all together with too few blocks for all."""
    from vllm import SamplingParams

    llm = make_llm(
        max_num_seqs=4,
        block_size=32,
        num_gpu_blocks_override=18,
        enable_prefix_caching=False,
    )
    parameters = SamplingParams(max_tokens=300, temperature=0, ignore_eos=True)
    prompts = [f"The quick brown fox number {n} jumps" for n in range(len(PRIORITIES))]
    alone = [texts(llm.generate([p], parameters, use_tqdm=False))[0] for p in prompts]
    preemptions: dict[str, int] = {}
    scheduler = scheduler_of(llm)

    def observe(_outputs: list[Any]) -> None:
        for name, request in scheduler.requests.items():
            preemptions[name] = max(preemptions.get(name, 0), request.num_preemptions)

    after_each_step(llm, observe)
    together = texts(llm.generate(prompts, parameters, priority=PRIORITIES, use_tqdm=False))
    names = sorted(preemptions, key=lambda name: int(name.partition("-")[0]))
    counts = [preemptions[name] for name in names]
    result = {
        "urgent": counts[URGENT],
        "normal": counts[:URGENT],
        "as_alone": together == alone,
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
