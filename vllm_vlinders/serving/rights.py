"""The rights of the caller, where vLLM knows what the stages could not: which model, how long a prompt.

These functions are called by patches, inside the handling of a request.
"""

from __future__ import annotations

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.exchange import current_exchange


def may_use(model: str) -> bool:
    """Tell whether the caller may use `model`; outside a request, or without authentication, yes."""
    exchange = current_exchange.get()
    return exchange is None or exchange.grant is None or exchange.grant.may_use(model)


def routed_names() -> list[str]:
    """Return what else requests can ask for: the names of the router, and the models of its upstreams."""
    from vllm_vlinders.serving.router import active_routing  # not before: the engine core imports no router

    routing = active_routing()
    if routing is None or not any(may_use(name) for name in routing.router.models):
        return []
    named = (name for name in routing.upstreams if may_use(name))
    return [*routing.router.settings.auto_names, *named]


def refuse_model(model: str) -> bool:
    """Refuse the request if its caller may not use `model`; return whether that is so."""
    exchange = current_exchange.get()
    if exchange is None or exchange.grant is None:
        return False
    try:
        exchange.grant.check_model(model)
    except RequestError as error:
        exchange.refusal = exchange.refusal or error
        return True
    return False
