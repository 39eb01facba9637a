"""Let running requests end when the server is asked to stop."""

from __future__ import annotations

import asyncio
from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch


class AsyncLLMDrain(VLLMPatch):
    """Wraps ``shutdown``, the first thing an API server does about SIGTERM."""

    name = "api_server_async_llm_drain"
    target = "vllm.v1.engine.async_llm:AsyncLLM"
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    required = False
    why = (
        "With --shutdown-timeout vLLM's engine core lets its requests end, but the API server goes on to "
        "take new ones, which the engine core aborts; and where several API servers share an engine, each "
        "closes its connections to the engine at once."
    )
    upstream = "none yet"
    remove_when = "vLLM's API servers refuse new requests and wait for running ones within --shutdown-timeout"
    relies_on = ("vllm.v1.engine.async_llm:AsyncLLM.shutdown",)
    fingerprints = FINGERPRINTS

    def shutdown(self: Any, timeout: float | None = None) -> None:
        """Wait for the requests of this process, then shut down as vLLM does, in the time that is left."""
        original = AsyncLLMDrain.original.shutdown
        if timeout and not _in_event_loop():
            from vllm_vlinders.serving.drain import end_requests

            timeout = end_requests(timeout)
        original(self, timeout=timeout)


def _in_event_loop() -> bool:
    """Tell whether waiting here would keep the requests themselves from going on."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
