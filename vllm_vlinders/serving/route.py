"""The stage that chooses a model for a request that leaves the choice to us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.routing.asked import PATHS, Asked, read_asked
from vllm_vlinders.routing.requirements import HEADER, NONE, Requirements, parse_header
from vllm_vlinders.routing.shape import shape
from vllm_vlinders.serving.body import peek_payload, replace_body
from vllm_vlinders.serving.exchange import ASGIApp, Exchange, Send
from vllm_vlinders.serving.router import Routed, Routing, active_routing, name_model


def is_routed(exchange: Exchange) -> bool:
    """Tell whether the request leaves the choice of its model to us; its body must have been read."""
    routing = active_routing()
    return (
        routing is not None
        and exchange.method == "POST"
        and exchange.path in PATHS
        and exchange.payload is not None
        and isinstance(model := exchange.payload.get("model"), str)
        and model in routing.router.auto_names
    )


async def route(exchange: Exchange) -> None:
    """Put the chosen model in place of the name that was given, and what its route sets beside it."""
    routing = active_routing()
    if routing is None or exchange.method != "POST" or exchange.path not in PATHS:
        return
    if exchange.payload is None and exchange.grant is None:
        await peek_payload(exchange, routing.fields)
    payload = exchange.payload
    model = None if payload is None else payload.get("model")
    if payload is None or not isinstance(model, str):
        return
    if is_routed(exchange):
        await _choose(routing, exchange, payload)
    elif model in routing.upstreams:
        _send_elsewhere(routing, exchange, read_asked(exchange.path, payload), (model,))


async def _choose(routing: Routing, exchange: Exchange, payload: dict[str, Any]) -> None:
    asked = read_asked(exchange.path, payload)
    requirements = _requirements(exchange)
    if routing.router.slow:  # other requests need not wait for its encoder
        routed = await asyncio.to_thread(routing.decide, exchange, asked, requirements)
    else:
        routed = routing.decide(exchange, asked, requirements)
    decision, chosen = routed.decision, routed.decision.route
    payload["model"] = decision.model
    if chosen is not None:
        shape(payload, exchange.path, asked, chosen)
        if chosen.request_priority is not None:
            exchange.context = exchange.context._replace(default_priority=chosen.request_priority)
    _tell(exchange, routed)
    exchange.on_finish.append(lambda: _count(routing, exchange))
    if decision.model in routing.upstreams:
        _send_elsewhere(routing, exchange, asked, decision.order)
    else:
        replace_body(exchange, payload)


def _send_elsewhere(routing: Routing, exchange: Exchange, asked: Asked, order: Sequence[str]) -> None:
    from vllm_vlinders.serving.upstreams.answer import answer_in_order  # it needs an upstream to be of use

    async def answerer(app: ASGIApp, send: Send) -> None:
        await answer_in_order(routing, exchange, asked, order, app=app, send=send)

    exchange.answerer = answerer


def _requirements(exchange: Exchange) -> Requirements:
    given = exchange.header(HEADER)
    if len(given) > 1:
        message = f"{HEADER}: given {len(given)} times; give it once"
        raise RequestError(message, param=HEADER, code="invalid_requirements")
    return parse_header(given[0]) if given else NONE


def _tell(exchange: Exchange, routed: Routed) -> None:
    """Note the decision in the context, and for the headers of the answer."""
    chosen = routed.decision.route
    name = "default" if chosen is None else chosen.name
    exchange.context = exchange.context._replace(route=name)
    name_model(exchange, routed.decision.model)
    exchange.response_headers += [
        (b"x-vlinders-route", name.encode("ascii", "backslashreplace")),
        (b"x-vlinders-route-reason", routed.why.encode("ascii", "backslashreplace")),
    ]


def _count(routing: Routing, exchange: Exchange) -> None:
    """Count what a routed request cost, by the model that has answered it."""
    meter, model = exchange.meter, (exchange.payload or {}).get("model")
    if exchange.refusal is None and (meter.prompt or meter.output):
        routing.count_cost(str(model), meter.prompt, meter.output)
