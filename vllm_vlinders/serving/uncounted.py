"""Work that goes on where limits do not see it: whoever has such limits may not ask for it."""

from __future__ import annotations

import re

from vllm_vlinders.auth.quota.plan import Plan
from vllm_vlinders.auth.roles import Grant
from vllm_vlinders.errors import RequestError
from vllm_vlinders.routing.asked import RESPONSES
from vllm_vlinders.serving.exchange import Exchange

_NO = (None, False)  # vLLM takes 1, "on" and others for true
_BEAM = re.compile(r"-[0-9a-f]{16}-beam-\d+")
"""In the ids that vLLM gives to what its beam search asks of the engine."""


def works_on(exchange: Exchange) -> bool:
    """Tell whether the request asks for an answer that is made in the background, after its own has ended."""
    return exchange.path == RESPONSES and (exchange.payload or {}).get("background") not in _NO


def refuse_uncounted(exchange: Exchange, grant: Grant, plan: Plan) -> None:
    """Refuse what cannot be held against the ceilings of the role and the limits of `plan`.

    Raises:
        RequestError: with status 400 or 403.
    """
    slots = plan.slots() if works_on(exchange) else []
    if slots:
        message = (
            f"background: concurrent_requests of {slots[0].subject} limits what runs at once, and such work "
            "runs on after its answer; leave it out"
        )
        raise RequestError(message, param="background", code="background_not_allowed")
    if not (grant.has_ceilings or plan.counts_tokens):
        return
    if exchange.method == "WEBSOCKET":
        message = (
            "WebSockets are not for callers with ceilings of a role, token limits or money limits: "
            "vLLM streams what they carry into the engine uncounted"
        )
        raise RequestError(message, status=403, kind="permission_error", code="websocket_not_allowed")
    if (exchange.payload or {}).get("use_beam_search") not in _NO:
        raise _no_beams()
    exchange.at_door.append(_refuse_beam)


def _refuse_beam(engine_request_id: str) -> None:
    """Refuse the beam search that a form has asked for, which the stages do not read."""
    if _BEAM.search(engine_request_id):
        raise _no_beams()


def _no_beams() -> RequestError:
    message = (
        "use_beam_search: each step of each beam is a request of its own to the engine, which ceilings of "
        "roles, token limits and money limits cannot see as one answer; callers who have such may not use it"
    )
    return RequestError(
        message,
        status=403,
        kind="permission_error",
        param="use_beam_search",
        code="beam_search_not_allowed",
    )
