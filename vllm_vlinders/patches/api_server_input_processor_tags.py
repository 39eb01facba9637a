"""Send tenant and deadline to the engine core with each request."""

from __future__ import annotations

import time
from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, REQUEST_TO_ENGINE_CORE, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.request_context import current_request
from vllm_vlinders.scheduling.bands import BANDS, band_of
from vllm_vlinders.scheduling.tags import Tags, encode
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.settings import active_settings

_LEAST_SECONDS = 0.001


class InputProcessorTags(VLLMPatch):
    """Wraps ``assign_request_id``, the last that every way into the engine does to a request."""

    name = "api_server_input_processor_tags"
    target = "vllm.v1.engine.input_processor:InputProcessor"
    feature = "priority"
    process = "api_server"
    versions = VERSIONS
    why = (
        "The engine core orders by tenant and deadline, which only the API server knows. The field "
        "trace_headers carries them; as an argument of generate() vLLM drops it where tracing is off."
    )
    upstream = "none: vLLM has no metadata of plugins on a request"
    remove_when = "vLLM serialises metadata of plugins with EngineCoreRequest"
    relies_on = REQUEST_TO_ENGINE_CORE
    fingerprints = FINGERPRINTS

    @staticmethod
    def assign_request_id(request: Any) -> None:
        """Assign the id as vLLM does, then write the tags into the request."""
        InputProcessorTags.original.assign_request_id(request)
        context = current_request.get()
        if context is None:
            return
        left = _start_within(context.deadline, -request.priority)
        if context.tenant is not None or left is not None:
            tags = Tags(context.tenant or DEFAULT_TENANT, left)
            request.trace_headers = encode(tags, request.trace_headers)


def _start_within(deadline: float | None, priority: int) -> float | None:
    """Return the seconds left until `deadline`; without one, what the band of `priority` allows."""
    if deadline is not None:
        return max(_LEAST_SECONDS, deadline - time.monotonic())
    milliseconds = active_settings().scheduler.deadline_ms.get(BANDS[band_of(priority)].name)
    return None if milliseconds is None else milliseconds / 1000
