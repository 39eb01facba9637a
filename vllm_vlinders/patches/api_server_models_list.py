"""List the models that the caller may use, and no others."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.rights import may_use


class ModelsList(VLLMPatch):
    """Wraps ``show_available_models``, which ``GET /v1/models`` answers."""

    name = "api_server_models_list"
    target = "vllm.entrypoints.openai.models.serving:OpenAIServingModels"
    feature = "auth"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = "Names of models and adapters can tell who else is served. No hook filters the list."
    upstream = "none: vLLM knows no principals"
    remove_when = "vLLM lets a plugin filter the list of models"
    fingerprints = FINGERPRINTS

    async def show_available_models(self: Any) -> Any:
        """Return vLLM's list without the models that the caller may not use."""
        models = await ModelsList.original.show_available_models(self)
        models.data = [card for card in models.data if may_use(card.id)]
        return models
