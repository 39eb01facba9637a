"""A gateway between real servers: the pipeline in front of a local model, and upstreams."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
from elsewhere import Served, wait_for
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from vllm_vlinders.routing.asked import PATHS
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.serving.router import active_routing, install_routing, open_routing
from vllm_vlinders.settings import Settings

CHAT = "/v1/chat/completions"
BODY = {"model": "big", "messages": [{"role": "user", "content": "hi"}]}
SELDOM = {"health_seconds": 10_000}
QUICK = {"health_seconds": 0.05, "rest_seconds": 0.05, "failures": 1}
Make = Callable[..., Any]


async def local(request: Request) -> JSONResponse:
    return JSONResponse({"model": (await request.json())["model"], "here": True})


class Gateway:
    """The pipeline in front of a local model `base`, with upstreams."""

    def __init__(self, **section: Any) -> None:
        settings = Settings.model_validate(
            {"routing": {"default": "base", "default_routes": False, **section}}
        )
        install_routing(open_routing(settings, ("base",)))
        app = Starlette(routes=[Route(path, local, methods=["POST"]) for path in PATHS])
        app.add_middleware(Pipeline)
        self.served = Served(app)
        self.client = httpx.Client(base_url=self.served.url, timeout=60)

    def ask(self, body: dict[str, Any] = BODY, **headers: str) -> httpx.Response:
        return self.client.post(CHAT, json=body, headers=headers)

    def upstream(self, name: str = "big") -> Any:
        routing = active_routing()
        assert routing is not None
        return routing.upstreams[name]

    def stop(self) -> None:
        self.client.close()
        self.served.stop()


def forget_health(at: Gateway, *names: str) -> None:
    """Wait until all replicas have been looked at for the first time, and forget what was seen."""
    for name in names or ("big",):
        for replica in at.upstream(name).replicas:
            wait_for(lambda: replica.up is not None, "it is not looked at")  # noqa: B023 -- called at once
            replica.up = None


_nobody: list[socket.socket] = []


def nowhere() -> str:
    """Return an address that refuses connections: it is taken, and nobody listens."""
    _nobody.append(socket.socket())
    _nobody[-1].bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{_nobody[-1].getsockname()[1]}"


def count(**labels: str) -> float:
    return REGISTRY.get_sample_value("vlinders_route_upstream_requests_total", labels) or 0.0
