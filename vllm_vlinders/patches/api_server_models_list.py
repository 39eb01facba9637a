"""List the models that the caller may use, those that the router stands for among them, and no others."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.rights import may_use, routed_names


class ModelsList(VLLMPatch):
    """Wraps ``show_available_models``, which ``GET /v1/models`` answers."""

    name = "api_server_models_list"
    target = "vllm.entrypoints.openai.models.serving:OpenAIServingModels"
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = (
        "Names of models and adapters can tell who else is served, and clients offer the names they find "
        "here: `auto` must be one of them. No hook changes the list."
    )
    upstream = "none: vLLM knows neither principals nor a router"
    remove_when = "vLLM lets a plugin change the list of models"
    fingerprints = FINGERPRINTS

    async def show_available_models(self: Any) -> Any:
        """Return vLLM's list without the models that the caller may not use, and with the router's names."""
        models = await ModelsList.original.show_available_models(self)
        pattern, more = models.data[0], routed_names()
        models.data = [card for card in models.data if may_use(card.id)]
        models.data += [
            pattern.model_copy(update={"id": name, "root": name, "parent": None, "max_model_len": None})
            for name in more
        ]
        return models
