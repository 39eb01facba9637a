"""Print, as JSON, what Acme's patch does to ``LLM.generate``, and whether ours still work."""

from __future__ import annotations

import json
from typing import Any

from in_process import make_llm


def main() -> None:
    """Generate, ask for what Acme refuses, and read the states of all patches."""
    llm = make_llm(max_num_seqs=2)
    from acme_patches.api_server_sampling_eos import SamplingEos
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    from vllm_vlinders.patching.report import read_reports

    answers = llm.generate(
        ["a", "b"], SamplingParams(max_tokens=4, temperature=0), priority=[0, 9], use_tqdm=False
    )
    refused = vllm_still_checks = ""
    try:
        SamplingParams(ignore_eos=True)
    except VLLMValidationError as error:
        refused = str(error)
    try:
        SamplingParams(temperature=-1)
    except VLLMValidationError as error:
        vllm_still_checks = str(error)
    (process,) = read_reports()
    states = {patch["patch"]: patch["state"] for patch in process["patches"]}
    result: dict[str, Any] = {
        "answers": len(answers),
        "refused": refused,
        "vllm_still_checks": vllm_still_checks,
        "states": states,
        "file": SamplingEos.original._verify_args.__code__.co_filename,
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
