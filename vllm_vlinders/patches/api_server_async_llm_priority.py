"""Give the engine core the priority of a request's header or body, on vLLM's scale."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.priority_scale import translate
from vllm_vlinders.patching.declare import VLLMPatch


class AsyncLLMPriority(VLLMPatch):
    """Wraps ``add_request``, the one way of all endpoints into the engine."""

    name = "api_server_async_llm_priority"
    target = "vllm.v1.engine.async_llm:AsyncLLM"
    feature = "priority"
    process = "api_server"
    versions = VERSIONS
    why = (
        "The header X-Vlinders-Priority must count on every endpoint (chat, completions, responses, "
        "messages, embeddings, transcriptions), and 0..1000 with larger first must become vLLM's lower "
        "first. vLLM's own X-Vllm-Priority is read by three endpoints only and on the other scale."
    )
    upstream = "none: the scale 0..1000 is this project's"
    remove_when = "vLLM lets a plugin rewrite requests before they reach the engine core"
    relies_on = (
        "vllm.v1.engine.async_llm:AsyncLLM.generate",
        "vllm.v1.engine.async_llm:AsyncLLM.encode",
    )
    fingerprints = FINGERPRINTS

    async def add_request(self: Any, *args: Any, **options: Any) -> Any:
        """Translate the priority, then add the request as vLLM does."""
        original = AsyncLLMPriority.original.add_request
        args, options = translate(original, (self, *args), options)
        return await original(*args, **options)
