"""Print, as JSON, what ``LLM.generate(priority=…)`` does: completion order, and refused values."""

from __future__ import annotations

import json
from typing import Any

from in_process import after_each_step, make_llm

PRIORITIES = [0, 5, 1000, 0, 50, 5, 100]


def main() -> None:
    """Generate with one slot, then with values that are not allowed."""
    from vllm import SamplingParams

    llm = make_llm(max_num_seqs=1)
    parameters = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)
    finished: list[str] = []

    def observe(outputs: list[Any]) -> None:
        finished.extend(output.request_id for output in outputs if output.finished)

    after_each_step(llm, observe)
    prompts = [f"prompt {n}" for n in range(len(PRIORITIES))]
    answers = llm.generate(prompts, parameters, priority=PRIORITIES, use_tqdm=False)
    order = [int(name.partition("-")[0]) for name in finished]
    refusals = {}
    for value in (-1, 1001):
        try:
            llm.generate(["a", "b"], parameters, priority=[1, value], use_tqdm=False)
        except ValueError as error:
            refusals[str(value)] = str(error)
    plain = llm.generate(["still alive"], parameters, use_tqdm=False)
    result = {
        "order": order,
        "answered": [answer.prompt for answer in answers] == prompts,
        "refusals": refusals,
        "alive": len(plain) == 1 and len(plain[0].outputs[0].token_ids) == parameters.max_tokens,
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
