"""Small real servers: an upstream that speaks the OpenAI API and can misbehave, and any ASGI application."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vllm_vlinders.metrics.engine_load import KV, RUNNING, WAITING
from vllm_vlinders.routing.asked import PATHS

PATIENCE = 60


def wait_for(state: Callable[[], Any], what: str) -> None:
    """Wait until `state` is true, with generous patience."""
    deadline = time.monotonic() + PATIENCE
    while not state():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Served:
    """An application on a port of loopback, in a thread."""

    def __init__(self, app: Any, port: int = 0) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started, "the server does not start")
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it at once, whatever it is doing."""
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(PATIENCE)


class Elsewhere:
    """An upstream.

    Attributes:
        mode: how it answers: ``ok``, ``break`` (in the middle), ``drop`` (before a byte), ``hang``, ``endless``,
            ``wait`` (once the headers of a stream are sent), or a status.
        seen: the requests that have come: headers and body.
        left: how many clients did not wait for the end of their stream.
        looks: how often its health was asked for.
    """

    STREAM = (
        b'data: {"id":"1","model":"there","choices":[{"delta":{"content":"\xc3\xa9"}}]}\n\n',
        b'data: {"id":"1", "choices":[{"delta":{"content":"b"}}]}\r\n\r\n',
        b': a comment\n\ndata: {"id":"1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
        b"data: [DONE]\n\n",
    )

    def __init__(self, mode: str | int = "ok") -> None:
        self.mode = mode
        self.healthy = True
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.left = 0
        self.looks = 0
        self.sent = 0
        routes = [Route(path, self.answer, methods=["POST"]) for path in PATHS]
        routes += [Route("/health", self.health), Route("/metrics", self.metrics)]
        self.app = Starlette(routes=routes)
        self.served = Served(self.app)

    @property
    def url(self) -> str:
        return self.served.url

    async def health(self, _request: Request) -> Response:
        self.looks += 1
        return Response(status_code=200 if self.healthy else 500)

    async def metrics(self, request: Request) -> Response:
        """As busy as can be; compressed where that is welcome, as by prometheus_client."""
        text = f"{KV} 1.0\n{RUNNING} 1.0\n{WAITING} 1.0\n".encode()
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return Response(gzip.compress(text), headers={"Content-Encoding": "gzip"})
        return Response(text)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.seen.append((dict(request.headers), body))
        if isinstance(self.mode, int):
            return JSONResponse(
                {"error": {"message": "no"}}, self.mode, {"Retry-After": "9", "Set-Cookie": "a=b"}
            )
        if self.mode == "hang":
            await asyncio.Event().wait()
        if self.mode == "drop":
            return StreamingResponse(_breaking(), media_type="text/event-stream")
        if body.get("stream"):
            return StreamingResponse(self.parts(), media_type="text/event-stream")
        usage = {"prompt_tokens": 7, "completion_tokens": 2}
        answer = {"model": body["model"], "choices": [{"text": "é"}], "usage": usage}
        if self.mode == "break":
            return StreamingResponse(
                _breaking(json.dumps(answer).encode()[:9]), media_type="application/json"
            )
        return JSONResponse(answer, headers={"Set-Cookie": "a=b", "X-Request-Id": "theirs"})

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            if self.mode == "wait":
                await asyncio.Event().wait()
            yield self.STREAM[0]
            while self.mode == "endless":
                self.sent += 1
                yield b"data: " + b"x" * 65536 + b"\n\n"
                await asyncio.sleep(0)
            if self.mode == "break":
                await asyncio.sleep(0.05)
                message = "broken on purpose"
                raise RuntimeError(message)
            for part in self.STREAM[1:]:
                yield part[:5]  # cut where no event ends
                yield part[5:]
        except asyncio.CancelledError:
            self.left += 1
            raise


async def _breaking(begin: bytes = b"") -> AsyncIterator[bytes]:
    if begin:
        yield begin
        await asyncio.sleep(0.05)
    message = "broken on purpose"
    raise RuntimeError(message)
