"""Count each request at the door of the engine, and check it where callers have rights and quotas."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.door import enter, may_choose_rank, may_name_session

_ENGINE = "vllm.v1.engine.async_llm:AsyncLLM"


class InputProcessorDoor(VLLMPatch):
    """Wraps ``assign_request_id``, the last that every way into the engine does to a request."""

    name = "api_server_input_processor_door"
    target = "vllm.v1.engine.input_processor:InputProcessor"
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = (
        "Quotas and usage are exact only with the tokens that the prompt really has, and ceilings and "
        "rights to adapters hold only where every endpoint passes. No hook sees a request before the "
        "engine does."
    )
    upstream = "none: vLLM knows neither tenants nor quotas"
    remove_when = "vLLM lets a plugin validate requests before they reach the engine core"
    relies_on = (
        "vllm.v1.engine:EngineCoreRequest",
        f"{_ENGINE}.add_request",
        f"{_ENGINE}._add_streaming_input_request",
    )
    fingerprints = FINGERPRINTS

    @staticmethod
    def assign_request_id(request: Any) -> None:
        """Assign the id as vLLM does, then let the request in, or not."""
        InputProcessorDoor.original.assign_request_id(request)
        params, lora = request.sampling_params, request.lora_request
        longest = enter(
            request.request_id,
            prompt=_length(request),
            answers=1 if params is None else params.n,
            max_tokens=None if params is None else params.max_tokens,
            adapter=None if lora is None else lora.lora_name,
            priority=-request.priority,
        )
        if params is not None and longest != params.max_tokens:
            params.max_tokens = longest
            params.min_tokens = min(params.min_tokens, longest)
        if not may_choose_rank():
            request.data_parallel_rank = None
        if not may_name_session():
            request.session_id = None


def _length(request: Any) -> int:
    if request.prompt_token_ids is not None:
        return len(request.prompt_token_ids)
    return 0 if request.prompt_embeds is None else len(request.prompt_embeds)
