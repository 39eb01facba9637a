"""``POST /vlinders/route``: which model would answer, with every signal and score. Nothing is run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_vlinders.auth.roles import models_of
from vllm_vlinders.errors import EncoderError, RequestError
from vllm_vlinders.metrics.engine_load import engine_load
from vllm_vlinders.routing.asked import CHAT, COMPLETIONS, RESPONSES, read_asked
from vllm_vlinders.routing.facts import Caller
from vllm_vlinders.routing.policy import Choice
from vllm_vlinders.routing.requirements import Requirements, parse_requirements
from vllm_vlinders.serving.access import active_access
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
    facts = router.facts(read_asked(path, body), Caller(**caller), engine_load, routing.targets)
    given = _requirements(body.get("requirements", {}), router.models)
    levels = given.levels.over(router.tenant_levels(facts.caller.tenant))
    choice = Choice(_models_of(facts.caller.role))

    def decide() -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for name, policy in (("first", router.policy), ("second", router.second)):
            if policy is not None:
                decision = policy.decide(facts, Requirements(levels, given.model), choice)
                answers[name] = None if decision is None else router.describe(facts, decision)
        return answers

    try:
        answers = await asyncio.to_thread(decide) if router.slow else decide()
    except EncoderError as error:
        raise RequestError(str(error), status=503, kind="server_error", code="encoder_down") from None
    text = json.dumps(answers["first"] if len(answers) == 1 else answers)
    return Response(text, media_type="application/json")


def _models_of(role: str | None) -> Callable[[str], bool]:
    """Return what tells whether a role may use a model; without authentication everybody may."""
    access = active_access()
    if access is None or role is None:
        return lambda _model: True
    try:
        return models_of(access.settings, role)
    except LookupError as error:
        raise RequestError(str(error.args[0]), param="role", code="invalid_value") from None


def _requirements(given: Any, models: Collection[str]) -> Requirements:
    if not isinstance(given, dict):
        raise RequestError("requirements: give an object", param="requirements", code="invalid_requirements")
    asked = parse_requirements(given)
    if asked.model is not None and asked.model not in models:
        message = f"requirements: there is no model {asked.model[:80]!r}; there are {', '.join(models)}"
        raise RequestError(message, param="requirements", code="invalid_requirements")
    return asked


ROUTES = (("/vlinders/route", explain, "POST"),)
