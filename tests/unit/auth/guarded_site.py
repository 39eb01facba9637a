"""A small application behind the real pipeline and guard."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import current_request
from vllm_vlinders.serving import door
from vllm_vlinders.serving.access import Access
from vllm_vlinders.serving.exchange import current_exchange
from vllm_vlinders.serving.management import management_routes
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.serving.refusals import refuse

PEPPER = "a pepper of the tests"
CHAT = "/v1/chat/completions"


class Site:
    """A guarded application, and what has reached it."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.reached: list[str] = []
        routes = [
            Route("/health", self.answer),
            Route("/v1/models", self.answer),
            Route(CHAT, self.answer, methods=["POST"]),
            Route("/v1/load_lora_adapter", self.answer, methods=["POST"]),
            Route("/metrics", self.answer),
            WebSocketRoute("/v1/realtime", self.talk),
            Mount("/mounted", routes=[Route("/deep", self.answer)]),
        ]
        app = Starlette(routes=routes)
        app.router.routes.extend(management_routes(lambda: {"fine": True, "processes": []}, ()))
        app.add_middleware(Pipeline)
        self.app = app
        self.client = TestClient(app)

    async def answer(self, request: Request) -> JSONResponse:
        self.reached.append(request.url.path)
        context = current_request.get()
        assert context is not None
        body = (await request.body()).decode(errors="replace")
        return JSONResponse(
            {
                "principal": context.principal,
                "tenant": context.tenant,
                "role": context.role,
                "rank": request.headers.get("x-data-parallel-rank"),
                "body": body,
            }
        )

    async def talk(self, socket: WebSocket) -> None:
        self.reached.append(socket.url.path)
        await socket.accept()
        await socket.send_text(str(current_request.get().tenant))  # type: ignore[union-attr]
        if "ask" in socket.query_params:
            await self._ask_the_engine(socket)
        await socket.close()

    async def _ask_the_engine(self, socket: WebSocket) -> None:
        """Go through the door of the engine with each message, as vLLM with each answer, and say how it went."""
        async for message in socket.iter_text():
            try:
                door.enter(message, prompt=1, answers=1, max_tokens=1, adapter=None, priority=0)
                await socket.send_text("in")
            except RequestError as error:
                await socket.send_text(str(error.code))

    def key(self, tenant: str = "acme", role: str = "user", **more: Any) -> str:
        """Make a key that counts at once."""
        key = self.access.office("test").create(tenant=tenant, role=role, **more).key
        assert self.access.directory is not None
        self.access.directory.refresh()
        return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def body(words: int = 10, **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "word " * words}],
        "max_tokens": 50,
        **more,
    }


def engine(
    site: Any,
    prompt: int = 20,
    output: int = 5,
    *,
    raises: bool = False,
    request_id: str | None = None,
    shed: bool = False,
) -> list[int | None]:
    """Let the site's endpoint do as vLLM does at the door of the engine; return the limits it was given."""
    limits: list[int | None] = []

    async def answer(request: Request) -> Response:
        payload = await request.json()
        n = payload.get("n", 1)
        given = payload.get("max_tokens", 4000)
        name = request_id or f"r{time.time_ns()}"
        limits.append(door.enter(name, prompt=prompt, answers=n, max_tokens=given, adapter=None, priority=0))
        exchange = current_exchange.get()
        assert exchange is not None
        assert exchange.meter is not None
        if shed:
            refuse(name, RequestError("too late", status=503, code="deadline_exceeded"))
            raise ValueError("as vLLM does")
        exchange.meter.output += output
        site.reached.append(CHAT)
        if raises:
            raise ValueError("as a handler may")
        if payload.get("stream"):

            async def parts() -> Any:
                for _ in range(3):
                    yield b"data: x\n\n"
                    await asyncio.sleep(0)

            return StreamingResponse(parts())
        return JSONResponse({"limit": limits[-1]})

    for index, route in enumerate(site.app.router.routes):
        if getattr(route, "path", "") == CHAT:
            site.app.router.routes[index] = Route(CHAT, answer, methods=["POST"])
    return limits


def used(site: Any, key: str, limit: str, subject: str = "tenant:acme") -> float:
    return float(
        site.client.get("/vlinders/usage", headers=bearer(key)).json()["subjects"][subject][limit]["used"]
    )
