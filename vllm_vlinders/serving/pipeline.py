"""The ASGI middleware that every HTTP and WebSocket request passes first: it runs the stages."""

from __future__ import annotations

import json
import uuid

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import RequestContext, current_request
from vllm_vlinders.serving.exchange import ASGIApp, Exchange, Message, Receive, Scope, Send
from vllm_vlinders.serving.stages import STAGES

_REQUEST_ID = b"x-vlinders-request-id"
_POLICY_VIOLATION = 1008


class Pipeline:
    """Pure ASGI: it neither buffers nor delays a body, in either direction."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stages, then the application with `current_request` set; answer a refusal of either."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, RequestContext(request_id=uuid.uuid4().hex))
        exchange.response_headers.append((_REQUEST_ID, exchange.context.request_id.encode()))
        answered = False

        async def send_tagged(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *exchange.response_headers]
            await send(message)

        try:
            await self._handle(exchange, receive, send_tagged)
        except RequestError as error:
            if answered:
                raise
            await _refuse(scope["type"], send_tagged, error)

    async def _handle(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        for stage in STAGES:
            await stage(exchange)
        token = current_request.set(exchange.context)
        try:
            await self.app(exchange.scope, receive, send)
        finally:
            current_request.reset(token)


def error_body(error: RequestError) -> bytes:
    """Return the JSON body of OpenAI's error shape."""
    fields = {
        "message": str(error),
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return json.dumps({"error": fields}).encode()


async def _refuse(kind: str, send: Send, error: RequestError) -> None:
    """Answer a refusal; a WebSocket that is refused before it is accepted becomes an HTTP 403."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(error)[:120]})
        return
    body = error_body(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
