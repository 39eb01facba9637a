"""The stage that measures: what a request was, how it ended, how long it took, what it used."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from vllm_vlinders.logs import the_level
from vllm_vlinders.metrics.labels import NONE
from vllm_vlinders.metrics.requests import Recorder, Times, Tokens, Who, open_recorder
from vllm_vlinders.scheduling.bands import BANDS, band_of
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.serving.bookkeeping import active_ledger
from vllm_vlinders.serving.exchange import Exchange, Message, Receive
from vllm_vlinders.serving.meter import Meter
from vllm_vlinders.settings import active_settings
from vllm_vlinders.usage.entry import Amounts

_WORK = ("POST", "WEBSOCKET")
_MANAGEMENT = "/vlinders/"
_METRICS = "/metrics"

before_scrape: list[Callable[[], None]] = []
"""Called before ``/metrics`` is answered, to bring gauges up to date."""


@cache
def recorder() -> Recorder | None:
    """Return what counts requests in this process; None where nothing is to be counted."""
    return open_recorder(active_settings())


def is_work(exchange: Exchange) -> bool:
    """Tell whether the request may make the model work: a POST or WebSocket that is not management."""
    return exchange.method in _WORK and not exchange.path.startswith(_MANAGEMENT)


async def measure(exchange: Exchange) -> None:
    """Measure each request that may make the model work; the first stage, so the last to finish."""
    counts = recorder()
    the_level().follow()
    if not is_work(exchange):
        if exchange.path == _METRICS:
            for refresh in before_scrape:
                refresh()
        return
    if counts is not None:
        counts.begin()
    exchange.receive = _watched(exchange.receive, exchange.meter)
    exchange.on_finish.append(lambda: _end(exchange, counts))


def tell_late(exchange: Exchange) -> None:
    """Count what has come out after the answer ended, as that of a background response does."""
    counts, who = recorder(), _who(exchange)
    news = _news(exchange.meter, who.model)
    if counts is not None:
        counts.add_tokens(who, news)
    _book(who, news, requests=0)


def _watched(receive: Receive, meter: Meter) -> Receive:
    async def watched() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect" and meter.client_left is None:
            meter.client_left = time.perf_counter()
        return message

    return watched


def _end(exchange: Exchange, counts: Recorder | None) -> None:
    meter, ended = exchange.meter, exchange.answered or time.perf_counter()
    times = Times(
        response=ended - exchange.begun,
        first_token=None if meter.first_token is None else meter.first_token - exchange.begun,
        queued=meter.queued,
        gaps=meter.gaps,
        gap_seconds=meter.gap_seconds,
    )
    who = _who(exchange)
    news = _news(meter, who.model)
    if counts is not None:
        counts.end(who, exchange.outcome, news, times)
    _book(who, news, requests=1)


def _book(who: Who, news: Tokens, requests: int) -> None:
    """Enter what the model did into the usage ledger."""
    ledger = active_ledger()
    if ledger is None or who.model is None:
        return
    ledger.add(who.tenant or NONE, who.model, Amounts(requests, *news))


def _news(meter: Meter, model: str | None) -> Tokens:
    """Return the tokens that have not been counted yet, and what they cost."""
    prompt, cached, output = meter.told
    meter.told = (meter.prompt, meter.cached, meter.output)
    prompt, output = meter.prompt - prompt, meter.output - output
    cost = active_settings().quotas.price_of(model).cost(prompt, output)
    return Tokens(prompt, meter.cached - cached, output, cost)


def _who(exchange: Exchange) -> Who:
    context, meter = exchange.context, exchange.meter
    guarded = active_settings().auth is not None
    priority = context.priority if meter.priority is None else meter.priority
    return Who(
        tenant=context.tenant or (None if guarded else DEFAULT_TENANT),
        model=model_of(exchange),
        band=BANDS[band_of(priority or 0)].name,
        route=context.route,
        role=context.role,
        principal=context.principal,
    )


def model_of(exchange: Exchange) -> str | None:
    """Return the name of the model or adapter that runs; None if nothing has gone into the engine."""
    return _base_model if exchange.meter.model == "" else exchange.meter.model


def model_asked_for(exchange: Exchange) -> str | None:
    """Return the name of the model in the body, without one that of this server's model, as vLLM does."""
    named = (exchange.payload or {}).get("model")
    return named if isinstance(named, str) and named else _base_model


_base_model: str | None = None


def serve_model(name: str) -> None:
    """Note the name under which this server serves its model."""
    global _base_model  # noqa: PLW0603 -- one per process, by nature
    _base_model = name
