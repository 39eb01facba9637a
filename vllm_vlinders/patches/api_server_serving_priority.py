"""Check the priority of a request body before the answer starts."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.errors import InvalidPriorityError
from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.effective_priority import body_speaks_vllm
from vllm_vlinders.scheduling.priority import check_priority

_TARGET = "vllm.entrypoints.generate.base.serving:GenerateBaseServing"


class ServingPriority(VLLMPatch):
    """Replaces the reading of ``priority`` of chat, completion and responses requests."""

    name = "api_server_serving_priority"
    target = _TARGET
    feature = "priority"
    process = "api_server"
    versions = VERSIONS
    why = (
        "A value outside 0..1000 must be answered with 400, also where the answer is streamed: later "
        "than here its status 200 is already sent. vLLM's X-Vllm-Priority header speaks the other "
        "scale and is not read. vLLM offers no hook for validating a body field."
    )
    upstream = "none: the scale 0..1000 is this project's"
    remove_when = "vLLM lets a plugin validate or rewrite parsed requests"
    fingerprints = FINGERPRINTS

    @staticmethod
    def _get_priority(request: Any, raw_request: Any) -> int:
        if body_speaks_vllm():
            priority: int = ServingPriority.original._get_priority(request, raw_request)
            return priority
        try:
            return check_priority(request.priority, "priority")
        except InvalidPriorityError as error:
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError(str(error), parameter="priority", value=request.priority) from None
