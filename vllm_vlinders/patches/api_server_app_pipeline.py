"""Install the request pipeline and the management endpoints in vLLM's API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.guarded_app import build_guarded
from vllm_vlinders.patching.declare import VLLMPatch

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI

_OLD = "vllm.entrypoints.openai.api_server"
_NEW = "vllm.entrypoints.launchers.api_server.entry"


class AppPipeline(VLLMPatch):
    """Wraps ``build_app`` where the server looks it up."""

    name = "api_server_app_pipeline"
    target = {"<0.29": _OLD, ">=0.29": _NEW}
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = (
        "Every request must pass the pipeline before anything else sees it, and the server must answer "
        "/vlinders/*. What --middleware names stands inside of what the SageMaker standards add, and "
        "vLLM's own check of --api-key must give way to ours. Endpoint plugins could add the routes, but "
        "they load only when VLLM_PLUGINS names them, and then that list filters all other plugins."
    )
    upstream = "none: vLLM has no plugin group for ASGI middleware"
    remove_when = "vLLM gains a plugin group for middleware and loads endpoint plugins by default"
    relies_on = {
        "<0.29": (f"{_OLD}:build_and_serve",),
        ">=0.29": (
            f"{_NEW}:build_and_serve",
            "vllm.entrypoints.launchers.app:build_app",
            "vllm.entrypoints.serve.middleware.register:init_entrypoints_middleware",
        ),
    }
    fingerprints = FINGERPRINTS

    @staticmethod
    def build_app(args: Namespace, *more: Any, **options: Any) -> FastAPI:
        """Build vLLM's application with the pipeline outermost, and add the management endpoints."""
        return build_guarded(AppPipeline.original.build_app, args, *more, **options)
