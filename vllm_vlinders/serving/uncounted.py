"""Work that goes on where limits do not see it: whoever has such limits may not ask for it."""

from __future__ import annotations

from vllm_vlinders.auth.quota.plan import Plan
from vllm_vlinders.errors import RequestError
from vllm_vlinders.routing.asked import RESPONSES
from vllm_vlinders.serving.exchange import Exchange


def works_on(exchange: Exchange) -> bool:
    """Tell whether the request asks for an answer that is made in the background, after its own has ended."""
    # vLLM takes 1, "on" and others for true.
    return exchange.path == RESPONSES and (exchange.payload or {}).get("background") not in (None, False)


def refuse_uncounted(exchange: Exchange, plan: Plan) -> None:
    """Refuse what cannot be held against the limits of `plan`.

    Raises:
        RequestError: with status 400.
    """
    slots = plan.slots()
    if slots and works_on(exchange):
        message = (
            f"background: concurrent_requests of {slots[0].subject} limits what runs at once, and such work "
            "runs on after its answer; leave it out"
        )
        raise RequestError(message, param="background", code="background_not_allowed")
