"""What all patches of this package share."""

from __future__ import annotations

from vllm_vlinders import SUPPORTED_VLLM
from vllm_vlinders.patching.table import load_fingerprints

VERSIONS = SUPPORTED_VLLM
FINGERPRINTS = load_fingerprints(__file__)
REQUEST_TO_ENGINE_CORE = (
    "vllm.v1.engine:EngineCoreRequest",
    "vllm.v1.request:Request.from_engine_core_request",
    "vllm.v1.engine.async_llm:AsyncLLM.add_request",
    "vllm.v1.engine.llm_engine:LLMEngine.add_request",
)
"""What carries a request, and the header that we add to it, from the API server to the engine core."""
