"""The router of one API server process: decisions, with what this server knows of sessions and callers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_vlinders.errors import RequestError, SettingsError
from vllm_vlinders.logs import make_logger
from vllm_vlinders.metrics import routing as counts
from vllm_vlinders.metrics.engine_load import engine_load
from vllm_vlinders.routing.asked import Asked
from vllm_vlinders.routing.facts import Caller, Facts, Targets
from vllm_vlinders.routing.grammar import load_grammars
from vllm_vlinders.routing.memory import SessionMemory, share_of
from vllm_vlinders.routing.policy import Choice, Decision
from vllm_vlinders.routing.requirements import HEADER, Requirements
from vllm_vlinders.routing.semantic_router import SemanticRouter
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.settings import RoutingSettings, Settings

if TYPE_CHECKING:
    from vllm_vlinders.routing.upstreams import Upstream
    from vllm_vlinders.serving.upstreams.pool import Pool

_SHOWN = 200
_WARM_UP = "How do I reverse a list?\n```python\nitems = [1, 2, 3]\nfor item in"


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision that counts.

    Attributes:
        decision: who answers.
        why: in a few words.
    """

    decision: Decision
    why: str


class Routing:
    """Decides for exchanges.

    Args:
        router: the router.
        memory: which model each session has.
        log: where failures are told.
    """

    def __init__(
        self, router: SemanticRouter, memory: SessionMemory | None, log: Any, pool: Pool | None = None
    ) -> None:
        self.router, self.pool, self._memory, self._log = router, pool, memory, log
        counts.expose()
        self.upstreams: Mapping[str, Upstream] = {} if pool is None else pool.upstreams
        self.targets = Targets(self.load, self.usable)
        names = sorted({*router.auto_names, *self.upstreams})
        self.fields = tuple(
            {form for name in names for form in (json.dumps(name).encode(), f'"{name}"'.encode())}
        )

    def decide(self, exchange: Exchange, asked: Asked, requirements: Requirements) -> Routed:
        """Choose a model that the caller may use.

        Raises:
            RequestError: they may use none (403), or prefer one that does not exist (400).
        """
        self._check_preference(exchange, requirements.model)
        started = time.perf_counter()
        context = exchange.context
        caller = Caller(context.tenant, context.principal, context.role, context.session)
        facts = self.router.facts(asked, caller, engine_load, self.targets)
        try:
            routed = self._decide(exchange, facts, requirements)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the default model can answer
            counts.count_failure()
            problem = f"{type(error).__name__}: {str(error)[:_SHOWN]}"
            self._log.error("route", problem=problem, effect="the default model answers")
            routed = self._without_decision(exchange, "failed")
        if routed is None:
            raise _forbidden(exchange)
        counts.observe_seconds(time.perf_counter() - started)
        return routed

    def usable(self, name: str) -> bool:
        """Tell whether a model can answer at the moment."""
        return name not in self.upstreams or self.upstreams[name].usable

    def load(self, name: str) -> float:
        """Return how busy a model is, 0 to 1."""
        upstream = self.upstreams.get(name)
        return engine_load() if upstream is None else upstream.load

    def _decide(self, exchange: Exchange, facts: Facts, requirements: Requirements) -> Routed | None:
        router, session, tenant = self.router, facts.caller.session, facts.caller.tenant
        levels = requirements.levels.over(router.tenant_levels(tenant))
        choice = Choice(
            may_use=lambda name: _may_use(exchange, name),
            previous=None if self._memory is None or session is None else self._memory.get(tenant, session),
        )
        asked = Requirements(levels, requirements.model)
        decisions = {"first": router.policy.decide(facts, asked, choice)}
        acting = "first"
        if router.second is not None and router.settings.second is not None:
            decisions["second"] = router.second.decide(facts, asked, choice)
            named = session or exchange.context.request_id
            acting = "second" if share_of(tenant, named) < router.settings.second.share else "first"
        chosen = decisions[acting]
        if chosen is None:
            return None
        shadow = router.settings.shadow
        self._count(decisions, None if shadow else acting)
        if shadow:
            return self._without_decision(exchange, f"shadow; {_why(chosen, facts)}")
        if self._memory is not None and session is not None:
            self._memory.put(tenant, session, chosen.model)
        return Routed(chosen, _why(chosen, facts))

    def _count(self, decisions: dict[str, Decision | None], acting: str | None) -> None:
        for policy, decision in decisions.items():
            if decision is not None:
                route = "" if decision.route is None else decision.route.name
                counts.count_decision(policy, route, decision.model, decision.reason, policy == acting)
        first, second = decisions["first"], decisions.get("second")
        if first is not None and second is not None:
            counts.count_second(first.model, second.model)

    def _without_decision(self, exchange: Exchange, why: str) -> Routed | None:
        names = [self.router.default, *self.router.models]
        allowed = tuple(dict.fromkeys(name for name in names if _may_use(exchange, name)))
        if not allowed:
            return None
        return Routed(Decision(allowed[0], "default", None, allowed, {}), why)

    def _check_preference(self, exchange: Exchange, name: str | None) -> None:
        if name is None:
            return
        if exchange.grant is not None:
            exchange.grant.check_model(name)
        if name not in self.router.models:
            known = ", ".join(model for model in self.router.models if _may_use(exchange, model))
            message = f"{HEADER}: there is no model {name[:80]!r} to prefer; there are {known}"
            raise RequestError(message, param=HEADER, code="invalid_requirements")

    def count_cost(self, model: str, prompt: int, answer: int) -> None:
        """Count what an answer cost, and what the strongest model had cost."""
        cost = self.router.models[model].cost(prompt, answer)
        counts.count_cost(model, cost, self.router.strongest.cost(prompt, answer))


def _may_use(exchange: Exchange, name: str) -> bool:
    return exchange.grant is None or exchange.grant.may_use(name)


def _why(decision: Decision, facts: Facts) -> str:
    found = facts.classification
    return f"{decision.reason}; category={found.category}; complexity={found.complexity:.2f}"


def name_model(exchange: Exchange, model: str) -> None:
    """Let the headers of the answer, and what is counted of it, name `model` as what answers."""
    header = b"x-vlinders-model"
    others = [pair for pair in exchange.response_headers if pair[0] != header]
    exchange.response_headers = [*others, (header, model.encode("ascii", "backslashreplace"))]
    if exchange.payload is not None:
        exchange.payload["model"] = model


def _forbidden(exchange: Exchange) -> RequestError:
    message = f"the role {exchange.context.role!r} may use none of the models that would be chosen from"
    return RequestError(message, status=403, kind="permission_error", param="model", code="model_not_allowed")


def open_routing(settings: Settings, served: Sequence[str], *, more_may_come: bool = False) -> Routing | None:
    """Return the router that `settings` ask for, warmed up; None where they ask for none.

    Args:
        settings: the whole tree.
        served: the models and adapters of this server, the base model first.
        more_may_come: whether adapters can be loaded later on.

    Raises:
        SettingsError: the section does not agree with itself, or with what is served.
    """
    section = settings.routing
    if section is None:
        return None
    if more_may_come:
        local = (name for name, model in section.models.items() if model.upstream is None)
        served = tuple(dict.fromkeys((*served, *local)))
    router = SemanticRouter.of_server(section, served)
    load_grammars()
    router.explain(_WARM_UP)
    folder, log = os.environ.get("VLINDERS_RUN_DIR"), make_logger(settings.logging)
    memory = SessionMemory(Path(folder) / "routes", sorted(router.models)) if folder else None
    return Routing(router, memory, log, _open_pool(section, log))


def _open_pool(section: RoutingSettings, log: Any) -> Pool | None:
    """Return the upstreams of the settings, looked at once.

    Raises:
        SettingsError: a secret is not there; or one does not answer, and the settings refuse that.
    """
    if not any(model.upstream for model in section.models.values()):
        return None
    from vllm_vlinders.serving.upstreams.pool import Pool  # aiohttp is loaded by those who need it

    pool = Pool(section.models, log)
    problems = pool.check()
    if problems and section.unreachable == "refuse":
        raise SettingsError(f"routing.unreachable: {'; '.join(problems)}")
    for problem in problems:
        log.warning("upstream down", problem=problem)
    return pool


_routing: Routing | None = None


def install_routing(routing: Routing | None) -> None:
    """Make `routing` the router of this process."""
    global _routing  # noqa: PLW0603 -- one per process, by nature
    _routing = routing


@asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Look after the upstreams of this process, if it has any, as long as its application runs."""
    pool = None if _routing is None else _routing.pool
    if pool is None:
        yield
        return
    pool.start()
    try:
        yield
    finally:
        await pool.close()


def active_routing() -> Routing | None:
    """Return the router of this process; None where the settings ask for none."""
    return _routing
