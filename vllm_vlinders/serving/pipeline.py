"""The ASGI middleware that every HTTP and WebSocket request passes first: it runs the stages."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable
from contextlib import ExitStack
from random import Random

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import RequestContext, current_request
from vllm_vlinders.serving import tracing
from vllm_vlinders.serving.answers import error_body
from vllm_vlinders.serving.drain import drain
from vllm_vlinders.serving.exchange import (
    ASGIApp,
    Exchange,
    Message,
    Receive,
    Scope,
    Send,
    current_exchange,
)
from vllm_vlinders.serving.request_logs import install as install_request_logs
from vllm_vlinders.serving.request_logs import logged_exchange, write_request_line
from vllm_vlinders.serving.router import running
from vllm_vlinders.serving.stages import STAGES

_REQUEST_ID = b"x-vlinders-request-id"
_POLICY_VIOLATION = 1008
_WEBSOCKET_STATUS = {"websocket.accept": 101, "websocket.close": 403}
_STARTS = ("http.response.start", "websocket.http.response.start")
_LAST_PARTS = ("http.response.body", "websocket.http.response.body", "websocket.close")
_ids = Random()  # noqa: S311 -- unique, and no secret: to ask the operating system takes 20 times as long
os.register_at_fork(after_in_child=_ids.seed)


class Pipeline:
    """Pure ASGI: it neither buffers nor delays what is sent back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stages, then the application with `current_request` set; answer a refusal of either."""
        if scope["type"] == "lifespan":
            install_request_logs()  # by now uvicorn's loggers are set up, and no request has come
            async with running():
                await self.app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, RequestContext(request_id=f"{_ids.getrandbits(128):032x}"), receive)
        exchange.response_headers.append((_REQUEST_ID, exchange.context.request_id.encode()))
        answer = _Answer(exchange, send)
        logged = logged_exchange.set(exchange)
        drain.enter()
        try:
            await self._answer(exchange, answer)
        finally:
            with ExitStack() as at_end:  # all are called, should one of them fail
                at_end.callback(drain.leave)
                for finish in reversed(exchange.on_finish):
                    at_end.callback(finish)
            write_request_line(exchange)
            tracing.end(exchange)
            exchange.finished = True
            logged_exchange.reset(logged)
            exchange.on_finish.clear()  # they hold the exchange: it goes now, and not with the next collection

    async def _answer(self, exchange: Exchange, answer: _Answer) -> None:
        try:
            await self._handle(exchange, answer.send)
        except RequestError as error:
            exchange.refusal = exchange.refusal or error
            if answer.begun:
                raise
        if exchange.refusal is not None and not answer.begun:
            said = {name.lower().encode() for name in exchange.refusal.headers}
            exchange.response_headers = [h for h in exchange.response_headers if h[0] not in said]
            await _refuse(exchange.scope["type"], answer.send_now, exchange.refusal)

    async def _handle(self, exchange: Exchange, send: Send) -> None:
        tracing.begin(exchange)
        for stage in STAGES:
            if exchange.span is None:
                await stage(exchange)
            else:
                with tracing.step(exchange, stage.__name__):
                    await stage(exchange)
        tokens = current_request.set(exchange.context), current_exchange.set(exchange)
        try:
            if exchange.answerer is None:
                await self.app(exchange.scope, exchange.receive, send)
            else:
                with tracing.step(exchange, "upstream"):
                    await exchange.answerer(self.app, send)
        except Exception:
            # What was refused ends in an error of vLLM's; the refusal is the answer.
            if exchange.refusal is None:
                raise
        finally:
            current_request.reset(tokens[0])
            current_exchange.reset(tokens[1])


class _Answer:
    """What is sent back: with our headers, and held until it is known not to be refused."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self.begun = False
        self._exchange = exchange
        self._send = send
        self._held: Message | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on `message` of the application; what is in the middle of an answer costs no more than this."""
        if self.begun and message.get("more_body"):
            return self._send(message)
        return self._send_or_hold(message)

    async def _send_or_hold(self, message: Message) -> None:
        if self._exchange.refusal is not None and not self.begun:
            return
        if message["type"] in _STARTS and self._exchange.may_be_refused:
            self._held = message
            return
        if self._held is not None:
            held, self._held = self._held, None
            await self.send_now(held)
        await self.send_now(message)

    async def send_now(self, message: Message) -> None:
        """Send `message`."""
        self.begun = True
        if message["type"] in _STARTS:
            self._exchange.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._exchange.response_headers]
        elif message["type"] in _WEBSOCKET_STATUS and self._exchange.status is None:
            self._exchange.status = _WEBSOCKET_STATUS[message["type"]]
        if message["type"] in _LAST_PARTS and not message.get("more_body", False):
            self._exchange.answered = time.perf_counter()
        await self._send(message)


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
