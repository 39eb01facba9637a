"""Reading a request's body before vLLM does: up to a limit, once, and replayed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.exchange import Exchange, Message, Receive

_OF_THE_BODY = (b"content-length", b"transfer-encoding")
_NOT_JSON = ("multipart/", "application/x-www-form-urlencoded", "application/octet-stream", "audio/")


async def read_payload(exchange: Exchange, limit: int) -> None:
    """Put the JSON object of the body into ``exchange.payload``; other bodies are limited, and left to vLLM.

    Args:
        exchange: of an HTTP request.
        limit: the most bytes.

    Raises:
        RequestError: the body is longer (413), or says that it is JSON and is not (400).
    """
    _check_declared(exchange, limit)
    kind = _kind(exchange)
    if kind.startswith(_NOT_JSON):
        _count(exchange, limit)
        return
    body = await _read(exchange, limit)
    if not body:
        return
    try:
        payload: Any = json.loads(body)
    except (ValueError, RecursionError):
        if kind.endswith("json"):
            message = "the request body is not valid JSON"
            raise RequestError(message, code="invalid_json") from None
        return
    if isinstance(payload, dict):
        exchange.payload = payload


def limit_body(exchange: Exchange, limit: int) -> None:
    """Let nobody read more than `limit` bytes of the body: whoever does raises a refusal (413).

    Raises:
        RequestError: it says itself that it is longer.
    """
    _check_declared(exchange, limit)
    _count(exchange, limit)


async def peek_payload(exchange: Exchange, fields: Sequence[bytes]) -> None:
    """As `read_payload`, for a stage that only wants to know: it limits and refuses nothing itself.

    Args:
        exchange: of an HTTP request.
        fields: names in quotation marks; a body that contains none of them is not parsed.
    """
    if _kind(exchange).startswith(_NOT_JSON):
        return
    body = await _read(exchange, math.inf)
    if not any(field in body for field in fields):
        return
    try:
        payload: Any = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(payload, dict):
        exchange.payload = payload


def replace_body(exchange: Exchange, payload: Mapping[str, Any]) -> None:
    """Let vLLM read `payload` in place of the body that came, which must have been read.

    Raises:
        RequestError: it is nested too deeply.
    """
    try:
        body = json.dumps(payload, separators=(",", ":")).encode()
    except RecursionError:
        raise RequestError("the request body is nested too deeply", code="invalid_json") from None
    headers = [header for header in exchange.scope["headers"] if header[0] not in _OF_THE_BODY]
    exchange.scope["headers"] = [*headers, (b"content-length", b"%d" % len(body))]
    came = exchange.receive.receive if isinstance(exchange.receive, _Replay) else exchange.receive
    exchange.receive = _Replay({"type": "http.request", "body": body, "more_body": False}, came)
    exchange.payload = dict(payload)


class _Replay:
    """Gives the message that has been read already, then those that come."""

    def __init__(self, message: Message, receive: Receive) -> None:
        self.receive = receive
        self._pending: list[Message] = [message]

    async def __call__(self) -> Message:
        return self._pending.pop() if self._pending else await self.receive()


def _kind(exchange: Exchange) -> str:
    return ";".join(exchange.header("content-type")).partition(";")[0].strip().lower()


async def _read(exchange: Exchange, limit: float) -> bytes:
    receive, parts, size = exchange.receive, [], 0
    last: Message = {"type": "http.request", "more_body": True}
    while last["type"] == "http.request" and last.get("more_body", False):
        last = await receive()
        part = last.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    body = b"".join(parts)
    whole: Message = {"type": "http.request", "body": body, "more_body": False}
    exchange.receive = _Replay(whole if last["type"] == "http.request" else last, receive)
    return body


def _check_declared(exchange: Exchange, limit: int) -> None:
    declared = exchange.header("content-length")
    if declared and declared[0].isdigit() and int(declared[0][:20]) > limit:
        raise _too_large(limit)


def _count(exchange: Exchange, limit: int) -> None:
    """Count what vLLM reads of the body, and refuse the request once it is too much."""
    receive, left = exchange.receive, limit

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            exchange.refusal = _too_large(limit)
            raise exchange.refusal
        return message

    exchange.receive = counted


def _too_large(limit: float) -> RequestError:
    message = f"the request body is larger than {limit} bytes (auth.max_body_bytes)"
    return RequestError(message, status=413, code="body_too_large")
