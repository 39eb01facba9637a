"""``LLM.generate(priority=[…])`` on the scale of the clients."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.priority_scale import translate
from vllm_vlinders.patching.declare import VLLMPatch


class LLMEnginePriority(VLLMPatch):
    """Wraps ``add_request`` of the offline engine, which ``LLM`` calls for each prompt."""

    name = "api_server_llm_engine_priority"
    target = "vllm.v1.engine.llm_engine:LLMEngine"
    feature = "priority"
    process = "api_server"
    versions = VERSIONS
    why = (
        "A priority means the same in LLM.generate as in an HTTP request: 0..1000, larger first. "
        "The offline engine has no extension point before its requests are made."
    )
    upstream = "none: the scale 0..1000 is this project's"
    remove_when = "vLLM lets a plugin rewrite requests before they reach the engine core"
    fingerprints = FINGERPRINTS

    def add_request(self: Any, *args: Any, **options: Any) -> Any:
        """Translate the priority, then add the request as vLLM does."""
        original = LLMEnginePriority.original.add_request
        args, options = translate(original, (self, *args), options)
        return original(*args, **options)
