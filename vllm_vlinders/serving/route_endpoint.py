"""``POST /vlinders/route``: which model would answer, with every signal and score. Nothing is run."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm_vlinders.errors import RequestError
from vllm_vlinders.metrics.engine_load import engine_load
from vllm_vlinders.routing.asked import CHAT, COMPLETIONS, RESPONSES, read_asked
from vllm_vlinders.routing.facts import Caller
from vllm_vlinders.routing.policy import Choice
from vllm_vlinders.routing.requirements import Requirements, parse_requirements
from vllm_vlinders.serving.router import active_routing

_NAMES = ("tenant", "principal", "role")


async def explain(request: Request) -> Response:
    """Answer what a request body would be routed to; ``requirements`` and who asks may stand beside it."""
    routing = active_routing()
    if routing is None:
        raise RequestError("this server has no router: set routing", status=404, code="no_router")
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not {"messages", "prompt", "input"} & set(body):
        raise RequestError("give a JSON object with messages, prompt or input", code="invalid_value")
    router = routing.router
    path = CHAT if "messages" in body else COMPLETIONS if "prompt" in body else RESPONSES
    caller = {name: body.get(name) for name in _NAMES if isinstance(body.get(name), str)}
    facts = router.facts(read_asked(path, body), Caller(**caller), engine_load)
    given = _requirements(body.get("requirements", {}))
    levels = given.levels.over(router.tenant_levels(facts.caller.tenant))
    answers, choice = {}, Choice(usable=routing.usable, load=routing.load)
    for name, policy in (("first", router.policy), ("second", router.second)):
        if policy is not None:
            decision = policy.decide(facts, Requirements(levels, given.model), choice)
            answers[name] = None if decision is None else router.describe(facts, decision)
    return JSONResponse(answers["first"] if len(answers) == 1 else answers)


def _requirements(given: Any) -> Requirements:
    if not isinstance(given, dict):
        raise RequestError("requirements: give an object", param="requirements", code="invalid_requirements")
    return parse_requirements(given)


ROUTES = (("/vlinders/route", explain, "POST"),)
