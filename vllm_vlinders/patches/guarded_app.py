"""vLLM's application, with the request pipeline around it and the management endpoints in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from vllm_vlinders.errors import StartupError
from vllm_vlinders.patching.front_end import exit_refusing
from vllm_vlinders.settings import active_settings

if TYPE_CHECKING:
    from argparse import Namespace

    from fastapi import FastAPI

    from vllm_vlinders.metrics.gpus import Gpus


_building = False


def build_guarded(build_app: Callable[..., FastAPI], args: Namespace, *more: Any, **options: Any) -> FastAPI:
    """Build vLLM's application by `build_app`; the pipeline stands outermost, whatever else there is.

    Raises:
        SystemExit: the settings ask for a guard that cannot be had: nothing is ever answered.
    """
    global _building  # noqa: PLW0603 -- one application at a time, by nature
    if _building:  # two patches wrap the one function: the outer one does the work
        return build_app(args, *more, **options)
    _building = True
    try:
        return _build(build_app, args, *more, **options)
    finally:
        _building = False


def _build(build_app: Callable[..., FastAPI], args: Namespace, *more: Any, **options: Any) -> FastAPI:
    from starlette.middleware import Middleware

    from vllm_vlinders.metrics.engine_counts import show_engine_counts
    from vllm_vlinders.patching.lifecycle import mark_api_server
    from vllm_vlinders.serving import drain
    from vllm_vlinders.serving.access import install, open_access
    from vllm_vlinders.serving.bookkeeping import open_ledger
    from vllm_vlinders.serving.error_reports import start as start_reports
    from vllm_vlinders.serving.management import management_routes
    from vllm_vlinders.serving.measure import before_scrape, serve_model
    from vllm_vlinders.serving.pipeline import Pipeline
    from vllm_vlinders.serving.request_logs import check
    from vllm_vlinders.serving.router import install_routing, open_routing
    from vllm_vlinders.serving.tracing import start as start_tracing

    keys, settings = _api_keys(args), active_settings()
    try:
        routing = open_routing(settings, _served(args), more_may_come=_more_may_come())
        access = open_access(settings, keys, *_context(more, options))
        open_ledger(settings)
        check(settings.logging)
        start_reports(settings.tracing)
    except StartupError as error:
        exit_refusing(error)
    install(access)
    install_routing(routing)
    with _without_vllms_keys(args, replaced=access is not None):
        app = build_app(args, *more, **options)
    app.router.routes.extend(management_routes(_status, keys))
    # The SageMaker standards have built the stack already; it is built anew by the first request.
    app.user_middleware.insert(0, Middleware(Pipeline))
    app.middleware_stack = None
    drain.serve(app)
    mark_api_server()
    serve_model((args.served_model_name or [args.model])[0])
    show_engine_counts()
    if getattr(args, "otlp_traces_endpoint", None):
        start_tracing()
    before_scrape[:] = [_refresh_gauges]
    return app


@contextmanager
def _without_vllms_keys(args: Namespace, *, replaced: bool) -> Iterator[None]:
    """Keep vLLM from adding its own check of ``--api-key``, which would refuse every other credential."""
    given = args.api_key
    if replaced:
        args.api_key = [""]  # empty keys are left out; none at all would let VLLM_API_KEY in
    try:
        yield
    finally:
        args.api_key = given


def _context(more: tuple[Any, ...], options: dict[str, Any]) -> tuple[int, ...]:
    """Return the greatest length that the model takes, if ``build_app`` was given its configuration."""
    given = [value for value in (*more, *options.values()) if hasattr(value, "max_model_len")]
    return tuple(value.max_model_len for value in given[:1])


def _served(args: Namespace) -> list[str]:
    """Return the names under which requests can ask for the model and for the adapters given at the start."""
    adapters = getattr(args, "lora_modules", None) or ()
    return [*(args.served_model_name or [args.model]), *(adapter.name for adapter in adapters)]


def _more_may_come() -> bool:
    from vllm import envs

    return bool(envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING)


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


@cache
def _gpus() -> Gpus | None:
    """Return the GPUs that vLLM runs on; None without NVIDIA's."""
    from vllm.platforms import current_platform

    from vllm_vlinders.metrics.gpus import open_gpus

    if not current_platform.is_cuda():
        return None
    from vllm.third_party import pynvml

    return open_gpus(pynvml)


def _refresh_gauges() -> None:
    from vllm_vlinders.metrics.catalogue import AGING
    from vllm_vlinders.metrics.families import gauge
    from vllm_vlinders.metrics.patch_info import record_patch_info
    from vllm_vlinders.patching.report import read_reports

    record_patch_info(read_reports())
    gauge(AGING).set(active_settings().scheduler.aging_seconds)
    gpus = _gpus()
    if gpus is not None:
        gpus.refresh()
