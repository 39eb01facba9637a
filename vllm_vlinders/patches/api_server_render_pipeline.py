"""Install the request pipeline in the server of ``vllm launch render``, which runs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.guarded_app import build_guarded
from vllm_vlinders.patching.declare import VLLMPatch

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI

_ENTRY = "vllm.entrypoints.launchers.render.entry"


class RenderPipeline(VLLMPatch):
    """Wraps ``build_app`` where that server looks it up; up to 0.28 it is where `AppPipeline` is."""

    name = "api_server_render_pipeline"
    target = {"<0.29": None, ">=0.29": _ENTRY}
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = "As api_server_app_pipeline: this server builds its application by a name of its own."
    upstream = "none: vLLM has no plugin group for ASGI middleware"
    remove_when = "as api_server_app_pipeline"
    relies_on = {">=0.29": (f"{_ENTRY}:build_and_serve_renderer",)}
    fingerprints = FINGERPRINTS

    @staticmethod
    def build_app(args: Namespace, *more: Any, **options: Any) -> FastAPI:
        """Build vLLM's application with the pipeline outermost, and add the management endpoints."""
        return build_guarded(RenderPipeline.original.build_app, args, *more, **options)
