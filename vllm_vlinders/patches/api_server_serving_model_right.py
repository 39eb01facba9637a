"""Hold the model that a request really names against what its caller may use."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.rights import refuse_model

_SERVING = "vllm.entrypoints.serve.engine.serving:BaseServing"


class ServingModelRight(VLLMPatch):
    """Wraps ``_is_model_supported``, which all endpoints ask about the name of the model, first of all."""

    name = "api_server_serving_model_right"
    target = _SERVING
    feature = "auth"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = (
        "Roles allow models by name. The name can come in a JSON body, in a form with an audio file, in a "
        "message of a WebSocket, in a SageMaker header, or be left out: only vLLM knows which one it "
        "takes. No hook validates a parsed request."
    )
    upstream = "none: vLLM knows no principals"
    remove_when = "vLLM lets a plugin validate parsed requests"
    relies_on = (
        f"{_SERVING}._check_model",
        "vllm.entrypoints.pooling.base.serving:PoolingBaseServing._check_model",
        "vllm.entrypoints.speech_to_text.realtime.connection:RealtimeConnection._check_model",
    )
    fingerprints = FINGERPRINTS

    def _is_model_supported(self: Any, model_name: str | None) -> bool:
        if refuse_model(model_name or self.models.base_model_paths[0].name):
            return False
        supported: bool = ServingModelRight.original._is_model_supported(self, model_name)
        return supported
