"""Send the session to the engine core with each request."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, REQUEST_TO_ENGINE_CORE, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.request_context import current_request
from vllm_vlinders.scheduling.tags import SessionTag, encode_session
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.sessions.identity import session_hash


class InputProcessorSession(VLLMPatch):
    """Wraps ``assign_request_id``, the last that every way into the engine does to a request."""

    name = "api_server_input_processor_session"
    target = "vllm.v1.engine.input_processor:InputProcessor"
    feature = "sessions"
    process = "api_server"
    versions = VERSIONS
    why = (
        "The balancer and the engine core need the session of every request, whatever endpoint it came by. "
        "vLLM's own session_id is read by some endpoints only, unscoped and of any length."
    )
    upstream = "none: vLLM has no metadata of plugins on a request"
    remove_when = "vLLM serialises metadata of plugins with EngineCoreRequest"
    relies_on = REQUEST_TO_ENGINE_CORE
    fingerprints = FINGERPRINTS

    @staticmethod
    def assign_request_id(request: Any) -> None:
        """Assign the id as vLLM does, then write the session into the request."""
        InputProcessorSession.original.assign_request_id(request)
        context = current_request.get()
        if context is None or context.session is None:
            return
        tenant = context.tenant or DEFAULT_TENANT
        tag = SessionTag(session_hash(tenant, context.session), tenant)
        request.trace_headers = encode_session(tag, request.trace_headers)
