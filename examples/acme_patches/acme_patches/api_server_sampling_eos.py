"""Refuse ``ignore_eos``, with which a request runs to its token limit whatever the model says."""

from __future__ import annotations

import os
from typing import Any

from vllm_vlinders.patching import VLLMPatch, load_fingerprints, min_vllm_version, vllm_versions

ALLOW = "ACME_ALLOW_IGNORE_EOS"


@min_vllm_version("0.28.0")
@vllm_versions("<0.34")
class SamplingEos(VLLMPatch["vllm.sampling_params:SamplingParams"]):
    """Wraps the check that vLLM makes of every request's sampling parameters."""

    name = "acme_api_server_sampling_eos"
    feature = "sampling"
    process = "api_server"
    why = (
        "ignore_eos is made for benchmarks; in production it burns tokens that nobody reads. vLLM has "
        "no switch for it and no hook for a company's own checks of sampling parameters."
    )
    upstream = "none: the rule is Acme's"
    remove_when = "vLLM lets the operator refuse ignore_eos"
    relies_on = ("vllm.exceptions:VLLMValidationError",)
    fingerprints = load_fingerprints(__file__)

    def _verify_args(self: Any) -> None:
        """Check as vLLM does, then refuse; vLLM answers 400 with the message, streaming or not."""
        SamplingEos.original._verify_args(self)
        if self.ignore_eos and os.environ.get(ALLOW) != "1":
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError(
                "ignore_eos: true is not allowed here; leave it out",
                parameter="ignore_eos",
                value=True,
            )
