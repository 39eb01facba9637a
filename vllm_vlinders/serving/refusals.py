"""Refusals that come from the engine core, after the request has left the pipeline."""

from __future__ import annotations

from weakref import WeakValueDictionary

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.exchange import Exchange, current_exchange

_exchanges: WeakValueDictionary[str, Exchange] = WeakValueDictionary()


def expect(engine_request_id: str) -> None:
    """Remember that the engine's request of this id belongs to the exchange being handled.

    Nothing is kept beyond an exchange's end.
    """
    exchange = current_exchange.get()
    if exchange is not None:
        _exchanges[engine_request_id] = exchange


def exchange_of(engine_request_id: str) -> Exchange | None:
    """Return the exchange that the engine's request of this id belongs to; None outside HTTP."""
    return _exchanges.get(engine_request_id)


def refuse(engine_request_id: str, error: RequestError) -> None:
    """Answer the exchange of that request with `error`, unless its answer has begun.

    The request never ran: nothing that it asked for is charged, unless another one of its exchange did.
    """
    exchange = _exchanges.get(engine_request_id)
    if exchange is None:
        return
    exchange.refusal = exchange.refusal or error
    if not exchange.meter.output and not exchange.finished:  # what has been counted stays
        exchange.meter.prompt = exchange.meter.most_output = 0
