"""One request, answered elsewhere: the replicas of its model are asked, then those that stand in for it.

What has been sent to the client is never sent again. Until then the next one is asked: where no connection
was had, where it ended, and where the answer is that the server has no room. An answer that is not
streamed is sent once it is whole, so that one that breaks off can still be asked for elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from vllm_vlinders.errors import RequestError
from vllm_vlinders.metrics import routing as counts
from vllm_vlinders.routing.asked import CHAT, COMPLETIONS, MESSAGES
from vllm_vlinders.routing.upstreams import Replica, Upstream
from vllm_vlinders.serving.answers import error_body
from vllm_vlinders.serving.exchange import Exchange, Header, Message, Receive, Send
from vllm_vlinders.serving.upstreams.headers import forwarded, returned
from vllm_vlinders.serving.upstreams.pool import Pool, describe
from vllm_vlinders.serving.upstreams.usage import UsageHider, UsageReader
from vllm_vlinders.settings import UpstreamSettings

_NO_ROOM = frozenset({429, 502, 503, 504})
_MISTAKEN = {401: "refuses our key", 403: "refuses our key"}
_CAN_BE_ASKED = (CHAT, COMPLETIONS)
_REDIRECTION = 3
_NOT_FOUND, _TOO_MANY, _BAD_REQUEST, _SERVER_ERROR = 404, 429, 400, 500
_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)
_STREAM = "text/event-stream"

Whole = tuple[Message, Message]
"""What the client is sent of an answer that is not streamed."""


class _Failed(Exception):  # noqa: N818 -- it is caught here, never an error of the program
    """A replica has not answered; another one may be asked."""

    def __init__(self, why: str, *, at_fault: bool = True, answer: Whole | None = None) -> None:
        super().__init__(why)
        self.at_fault, self.answer = at_fault, answer


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way.

    Attributes:
        exchange: the request.
        payload: its body, without the name of the model and the priority.
        session: which replica it belongs to, or None.
        prompt: about how many tokens its prompt has.
        priority: 0 to 1000, no higher than the caller may have.
        tried: what has been asked in vain, in words for the caller; it grows.
        in_vain: of each replica that was, its answer if that was 404, else None; it grows.
        settled: whether it is noted what an answer has used.
    """

    exchange: Exchange
    payload: Mapping[str, Any]
    session: str | None
    prompt: int
    priority: int
    tried: list[str] = field(default_factory=list)
    in_vain: list[Whole | None] = field(default_factory=list)
    settled: bool = False


class ClientLeftError(Exception):
    """The client has closed its connection; nobody waits for the answer."""


async def ask(pool: Pool, upstream: Upstream, call: Call, send: Send) -> bool:
    """Let a replica of `upstream` answer; return whether one has.

    Raises:
        ClientLeftError: the client has not waited.
    """
    asked = False
    for replica in upstream.choices(call.session):
        asked, outcome = True, "failed"
        try:
            outcome = await _while_there(_ask_one(pool, upstream, replica, call, send), call)
        except _Failed as failure:
            pool.log.warning("upstream", model=upstream.name, url=replica.url, problem=str(failure))
            call.tried.append(f"{upstream.name} (replica {replica.number} {failure})")
            call.in_vain.append(failure.answer)
        except ClientLeftError:
            outcome = "client_left"
            raise
        else:
            return True
        finally:
            counts.count_upstream(upstream.name, replica.number, outcome)
    if not asked:
        call.tried.append(f"{upstream.name} (no replica is up)")
    return False


async def pass_not_found(call: Call, send: Send) -> bool:
    """Send the last answer if each replica that was asked has answered 404; return whether that is so."""
    answers = [answer for answer in call.in_vain if answer is not None]
    if not answers or len(answers) < len(call.in_vain):
        return False
    for message in answers[-1]:
        await send(message)
    return True


async def _while_there(answering: Coroutine[Any, Any, str], call: Call) -> str:
    """Return what `answering` does, unless the client leaves; then it is cancelled, and its connection closed."""
    asked = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(_until_gone(call.exchange.receive))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ClientLeftError
        return asked.result()
    finally:
        for task in (asked, gone):
            task.cancel()
        await asyncio.gather(asked, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ask_one(pool: Pool, upstream: Upstream, replica: Replica, call: Call, send: Send) -> str:
    """Ask one replica, and keep account of how it does; return how its answer ended."""
    breaker = replica.breaker
    breaker.start()
    call.exchange.meter.model = upstream.name
    replica.in_flight += 1
    try:
        outcome = await _exchange_with(pool, upstream, replica, call, send)
    except _Failed as failure:
        if failure.at_fault:
            breaker.fail(upstream.clock())
        else:
            breaker.abandon()
        raise
    except RequestError:
        breaker.fail(upstream.clock())
        raise
    except BaseException:
        breaker.abandon()
        raise
    finally:
        replica.in_flight -= 1
    if outcome == "answered":
        breaker.succeed()
    else:
        breaker.fail(upstream.clock())
    return outcome


async def _exchange_with(pool: Pool, upstream: Upstream, replica: Replica, call: Call, send: Send) -> str:
    settings, exchange = upstream.settings, call.exchange
    payload, hider = {**call.payload, "model": upstream.model}, None
    if settings.ask_usage and exchange.path in _CAN_BE_ASKED and _says_nothing_of_usage(payload):
        payload["stream_options"], hider = {"include_usage": True}, UsageHider()
    body = json.dumps(payload, separators=(",", ":")).encode()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_seconds)
    headers = forwarded(exchange, upstream, call.priority)
    try:
        async with asyncio.timeout(settings.first_byte_seconds):
            answer = await pool.client(upstream).post(
                f"{replica.url}{exchange.path}",
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            )
    except _TROUBLE as error:
        raise _refusal_or_failure(error) from None
    async with answer:
        if answer.status in _NO_ROOM:
            raise _Failed(f"answers {answer.status}", at_fault=answer.status != _TOO_MANY)
        if answer.status == _NOT_FOUND:
            whole = await _read_whole(answer, settings)
            raise _Failed("answers 404", at_fault=False, answer=whole)  # of what was asked for, perhaps
        if answer.status in _MISTAKEN or answer.status // 100 == _REDIRECTION:
            raise _Failed(_MISTAKEN.get(answer.status, "is somewhere else"))
        if answer.content_type == _STREAM:
            return await _pass_stream(answer, settings, hider, call, send)
        return await _pass_whole(answer, settings, call, send)


async def _read_whole(answer: aiohttp.ClientResponse, settings: UpstreamSettings) -> Whole:
    try:
        async with asyncio.timeout(settings.first_byte_seconds):
            body = await answer.read()
    except _TROUBLE as error:
        raise _refusal_or_failure(error) from None
    return _start(answer, (b"content-length", b"%d" % len(body))), _end(body)


async def _pass_whole(
    answer: aiohttp.ClientResponse, settings: UpstreamSettings, call: Call, send: Send
) -> str:
    start, end = await _read_whole(answer, settings)
    reader = UsageReader()
    reader.read_whole(end["body"])
    if answer.status < _BAD_REQUEST:
        settle(call, reader)
    await send(start)
    await send(end)
    return "error" if answer.status >= _SERVER_ERROR else "answered"


async def _pass_stream(
    answer: aiohttp.ClientResponse,
    settings: UpstreamSettings,
    hider: UsageHider | None,
    call: Call,
    send: Send,
) -> str:
    """Pass on each part as it comes; what comes faster than the client reads waits in the upstream.

    vLLM sends the headers of a stream before the request has run: it may wait for its first part.
    """
    reader, begun = UsageReader(), False
    try:
        while True:
            try:
                async with asyncio.timeout(settings.idle_seconds if begun else settings.first_byte_seconds):
                    part = await answer.content.readany()
            except _TROUBLE as error:
                if not begun:
                    raise _refusal_or_failure(error) from None
                await send(_end(_broken_off(call.exchange.path, describe(error))))
                return "broken_off"
            if not begun:
                begun = True
                call.exchange.meter.first_token = time.perf_counter()
                await send(_start(answer))
            if not part:
                await send(_end(b"" if hider is None else hider.rest()))
                return "answered"
            reader.feed(part)
            shown = part if hider is None else hider.feed(part)
            if shown:
                await send({"type": "http.response.body", "body": shown, "more_body": True})
    finally:
        if begun:
            settle(call, reader)


def _refusal_or_failure(error: BaseException) -> Exception:
    """Return what follows from `error`: what takes one server so long would hold up the next one as well."""
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        message = "the model's server has not answered in time"
        return RequestError(message, status=504, kind="server_error", code="upstream_timeout")
    return _Failed(describe(error))


def settle(call: Call, reader: UsageReader) -> None:
    """Note what an answer has used: what it says, else about as much."""
    meter = call.exchange.meter
    meter.prompt = reader.prompt if reader.prompt is not None else call.prompt
    meter.cached = min(reader.cached, meter.prompt)
    meter.output = reader.used
    call.settled = True


def _says_nothing_of_usage(payload: Mapping[str, Any]) -> bool:
    return payload.get("stream") is True and payload.get("stream_options") is None


def _start(answer: aiohttp.ClientResponse, *more: Header) -> Message:
    return {"type": "http.response.start", "status": answer.status, "headers": [*returned(answer), *more]}


def _end(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": False}


def _broken_off(path: str, why: str) -> bytes:
    """Return the event that ends a stream which the upstream has not ended, in the form of the endpoint."""
    error = RequestError(
        f"the answer broke off: the model's server {why}",
        status=502,
        kind="server_error",
        code="upstream_lost",
    )
    if path != MESSAGES:
        return b"\n\ndata: " + error_body(error) + b"\n\n"
    told = {"type": "error", "error": {"type": "api_error", "message": str(error)}}
    return b"\n\nevent: error\ndata: " + json.dumps(told).encode() + b"\n\n"
