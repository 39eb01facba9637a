"""Install the request pipeline and the management endpoints in vLLM's API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI

_PIPELINE = "vllm_vlinders.serving.pipeline.Pipeline"
_OLD = "vllm.entrypoints.openai.api_server"
_NEW = "vllm.entrypoints.launchers.api_server.entry"


class AppPipeline(VLLMPatch):
    """Wraps ``build_app`` where the server looks it up."""

    name = "api_server_app_pipeline"
    target = {"<0.29": _OLD, ">=0.29": _NEW}
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    why = (
        "Every request must pass the pipeline and the server must answer /vlinders/*. The pipeline goes "
        "in through vLLM's own --middleware, whose last entry stands outermost; the patch spares users "
        "that option on every command line. Endpoint plugins could add the routes, but they load only "
        "when VLLM_PLUGINS names them, and then that list filters all other plugins."
    )
    upstream = "none: vLLM has no plugin group for ASGI middleware"
    remove_when = "vLLM gains a plugin group for middleware and loads endpoint plugins by default"
    relies_on = {
        "<0.29": (f"{_OLD}:build_and_serve",),
        ">=0.29": (f"{_NEW}:build_and_serve", "vllm.entrypoints.launchers.app:build_app"),
    }
    fingerprints = FINGERPRINTS

    @staticmethod
    def build_app(args: Namespace, *more: Any, **options: Any) -> FastAPI:
        """Build vLLM's application with the pipeline outermost, and add the management endpoints."""
        from vllm_vlinders.patching.lifecycle import mark_api_server
        from vllm_vlinders.patching.report import read_reports
        from vllm_vlinders.serving.management import management_routes

        if _PIPELINE not in args.middleware:
            args.middleware = [*args.middleware, _PIPELINE]
        app: FastAPI = AppPipeline.original.build_app(args, *more, **options)
        app.router.routes.extend(management_routes(_status, _api_keys(args)))
        mark_api_server()
        _record_patch_info(read_reports())
        return app


def _api_keys(args: Namespace) -> list[str]:
    from vllm import envs

    return [key for key in (args.api_key or [envs.VLLM_API_KEY]) if key]


def _status() -> dict[str, Any]:
    from vllm_vlinders import __version__
    from vllm_vlinders.patching.gate import running_vllm_version
    from vllm_vlinders.patching.report import read_reports

    return {
        "version": __version__,
        "vllm": str(running_vllm_version()),
        "processes": read_reports(),
    }


def _record_patch_info(reports: list[dict[str, Any]]) -> None:
    from vllm_vlinders.metrics.patch_info import record_patch_info

    record_patch_info(reports)
