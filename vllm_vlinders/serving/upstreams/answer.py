"""The answer to a request whose model is an upstream's, or stands in for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_vlinders.auth.quota.plan import estimate
from vllm_vlinders.auth.roles import MAX_TOKENS_FIELDS
from vllm_vlinders.errors import RequestError
from vllm_vlinders.routing.asked import COMPLETIONS, MESSAGES, RESPONSES, Asked
from vllm_vlinders.scheduling.effective_priority import effective_priority, on_scale
from vllm_vlinders.serving.access import active_access
from vllm_vlinders.serving.body import replace_body
from vllm_vlinders.serving.exchange import CLIENT_LEFT, ASGIApp, Exchange, Send
from vllm_vlinders.serving.router import Routing, name_model
from vllm_vlinders.serving.upstreams.forward import Call, ClientLeftError, ask, pass_not_found

_PRIORITY = "priority"
_RETRY_SECONDS = "5"
_MODEL, _REASON = b"x-vlinders-model", b"x-vlinders-route-reason"


async def answer_in_order(
    routing: Routing, exchange: Exchange, asked: Asked, order: Sequence[str], *, app: ASGIApp, send: Send
) -> None:
    """Let the first model of `order` answer that can, one of this server among them.

    Where all that are asked answer 404, the last 404 is passed on.

    Raises:
        RequestError: none can (503), the prompt is longer than the caller may send (403), the priority in
            the body is not allowed (400), or a limit of the caller leaves no room for what the next one
            costs (429).
    """
    payload, pool = exchange.payload, routing.pool
    if payload is None or pool is None:
        message = "there is nothing to send on"
        raise RuntimeError(message)
    prompts = _prompts(exchange, payload)
    if exchange.grant is not None:
        exchange.grant.check_context(max(prompts))
    session = exchange.context.session
    session = None if session is None else f"{exchange.context.tenant or ''}\0{session}"
    body = {name: value for name, value in _within_limit(exchange, payload).items() if name != _PRIORITY}
    call = Call(exchange, body, session, sum(prompts), _priority(exchange, payload))
    for model in order:
        upstream = routing.upstreams.get(model)
        name_model(exchange, model)
        if model != order[0]:
            _tell_instead(exchange, order[0])
        if upstream is None:
            replace_body(exchange, payload)
            await app(exchange.scope, exchange.receive, send)
            return
        _reserve(exchange, model)
        try:
            if await ask(pool, upstream, call, send):
                return
        except ClientLeftError:
            exchange.status = CLIENT_LEFT
            if not call.settled:
                _settle_unanswered(call, payload, asked)
            return
    exchange.response_headers = [pair for pair in exchange.response_headers if pair[0] != _MODEL]
    if await pass_not_found(call, send):
        return
    message = f"no model can answer at the moment; tried: {', '.join(call.tried)}"
    raise RequestError(
        message,
        status=503,
        kind="server_error",
        code="upstreams_down",
        headers={"Retry-After": _RETRY_SECONDS},
    )


def _prompts(exchange: Exchange, payload: dict[str, Any]) -> list[int]:
    """Return about how many tokens each prompt of a request has: /v1/completions may have several."""
    given = payload.get("prompt")
    parts = [payload]
    if exchange.path == COMPLETIONS and isinstance(given, list) and given and not isinstance(given[0], int):
        parts = [{"prompt": one} for one in given]
    return [estimate(exchange.path, part, limit=None, context=0).prompt for part in parts]


def _reserve(exchange: Exchange, model: str) -> None:
    """Hold what has been reserved against the limits once more, at the price of `model`."""
    meter = exchange.meter
    meter.model = model
    if meter.reserve is not None:
        meter.reserve(model, meter.prompt, meter.most_output)


def _settle_unanswered(call: Call, payload: dict[str, Any], asked: Asked) -> None:
    """Note what a request may have used whose client left before an answer had begun.

    A stream that has not begun has given nothing. An answer that comes as a whole may have been made as far
    as it could be: its output is what was reserved. Where nothing was, nothing is known of it, and it is 0.
    """
    exchange, meter = call.exchange, call.exchange.meter
    meter.prompt = call.prompt
    access = None if meter.reserve is None or asked.stream else active_access()
    if access is not None:
        meter.output = estimate(exchange.path, payload, meter.limit, access.context).output


def _tell_instead(exchange: Exchange, chosen: str) -> None:
    """Add to the reason that another model was chosen, and could not answer."""
    more = f"; instead of {chosen}".encode("ascii", "backslashreplace")
    exchange.response_headers = [
        (name, value.removesuffix(more) + more if name == _REASON else value)
        for name, value in exchange.response_headers
    ]


def _priority(exchange: Exchange, payload: dict[str, Any]) -> int:
    """Return the priority of a request as it would count here; /v1/messages has none in its body."""
    given = 0 if exchange.path == MESSAGES else payload.get(_PRIORITY, 0)
    return on_scale(effective_priority(exchange.context, given))


def _within_limit(exchange: Exchange, payload: dict[str, Any]) -> dict[str, Any]:
    """Return a body that asks for no longer an answer than the caller may have."""
    limit = exchange.meter.limit
    if limit is None:
        return payload
    given = [name for name in MAX_TOKENS_FIELDS if payload.get(name) is not None]
    fields = given or ["max_output_tokens" if exchange.path == RESPONSES else "max_tokens"]
    return {**payload, **{name: _shorter(payload.get(name), limit) for name in fields}}


def _shorter(asked: Any, limit: int) -> int:
    """Return what is asked for as far as `limit` goes; `limit` where it is no length."""
    is_length = isinstance(asked, int) and not isinstance(asked, bool) and asked >= 0
    return min(asked, limit) if is_length else limit
