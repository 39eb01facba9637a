"""The ASGI middleware that every HTTP and WebSocket request passes first: it runs the stages."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import RequestContext, current_request
from vllm_vlinders.serving.stages import STAGES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

REQUEST_ID_HEADER = b"x-vlinders-request-id"
_POLICY_VIOLATION = 1008


class Pipeline:
    """Pure ASGI: it neither buffers nor delays a body, in either direction."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Run the stages, then the application with `current_request` set, or answer the refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        context = RequestContext(request_id=uuid.uuid4().hex)
        tagged = _with_request_id(send, context.request_id)
        try:
            for stage in STAGES:
                context = stage(scope, context)
        except RequestError as error:
            await _refuse(scope["type"], tagged, error)
            return
        token = current_request.set(context)
        try:
            await self.app(scope, receive, tagged)
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


def _with_request_id(send: Send, request_id: str) -> Send:
    header = (REQUEST_ID_HEADER, request_id.encode())

    async def send_tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), header]
        await send(message)

    return send_tagged


async def _refuse(kind: str, send: Send, error: RequestError) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(error)[:120]})
        return
    body = error_body(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
