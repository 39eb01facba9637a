"""Reading a request's body before vLLM does: up to a limit, once, and replayed."""

from __future__ import annotations

import json
from typing import Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.exchange import Exchange, Message

_NOT_JSON = ("multipart/", "application/x-www-form-urlencoded", "application/octet-stream", "audio/")


async def read_payload(exchange: Exchange, limit: int) -> None:
    """Put the JSON object of the body into ``exchange.payload``; other bodies are limited, and left to vLLM.

    Args:
        exchange: of an HTTP request.
        limit: the most bytes.

    Raises:
        RequestError: the body is longer (413), or says that it is JSON and is not (400).
    """
    declared = exchange.header("content-length")
    if declared and declared[0].isdigit() and int(declared[0][:20]) > limit:
        raise _too_large(limit)
    kind = ";".join(exchange.header("content-type")).partition(";")[0].strip().lower()
    if kind.startswith(_NOT_JSON):
        _limit(exchange, limit)
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


async def _read(exchange: Exchange, limit: int) -> bytes:
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
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    if last["type"] != "http.request":
        pending = [last]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    exchange.receive = replay
    return body


def _limit(exchange: Exchange, limit: int) -> None:
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


def _too_large(limit: int) -> RequestError:
    message = f"the request body is larger than {limit} bytes (auth.max_body_bytes)"
    return RequestError(message, status=413, code="body_too_large")
