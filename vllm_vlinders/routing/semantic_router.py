"""The router: the Python interface, and what the server asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.routing.asked import Asked, of_prompt
from vllm_vlinders.routing.checks import check_names, with_default
from vllm_vlinders.routing.classifier import classify as trained_classify
from vllm_vlinders.routing.encoders import Encoder
from vllm_vlinders.routing.facts import IDLE, SIGNALS, Caller, Classify, Facts, Targets
from vllm_vlinders.routing.models import Model, compare
from vllm_vlinders.routing.policy import Choice, Decision, Policy
from vllm_vlinders.routing.requirements import NO_LEVELS, Requirements, parse_requirements
from vllm_vlinders.routing.utterances import open_encoder
from vllm_vlinders.settings import RequirementSettings, RoutingSettings


class SemanticRouter:
    """Chooses a model for a prompt.

    ``slow`` tells whether that takes milliseconds, by an encoder that is not the static one.

    Args:
        models: by name, what is known of each: ``capabilities``, ``cost``, ``speed``, ``quality``, ``fallback``.
        routes: routes of your own, as in the settings; they come before those that are built in.
        default: the model of prompts that no route matches; None: the first of `models`.
        classify: says what a prompt asks for; None: `vllm_vlinders.routing.classify`.
        encoder: turns utterances of routes into vectors; None: the one that comes with it.
        more: any other key of the section ``routing``.

    Raises:
        SettingsError: a value is not allowed, or a name is unknown or given twice.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]],
        routes: Sequence[Mapping[str, Any]] = (),
        default: str | None = None,
        *,
        classify: Classify | None = None,
        encoder: Encoder | None = None,
        **more: Any,
    ) -> None:
        try:
            settings = RoutingSettings.model_validate(
                {"models": models, "routes": routes, "default": default, **more}
            )
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, ('routing', *at['loc'])))}: {at['msg']}" for at in error.errors()
            )
            raise SettingsError("\n".join(problems)) from None
        self._set_up(settings, (), classify, encoder)

    @classmethod
    def of_server(
        cls,
        settings: RoutingSettings,
        served: Sequence[str],
        *,
        classify: Classify | None = None,
        encoder: Encoder | None = None,
    ) -> SemanticRouter:
        """Return the router of a server that serves these models itself, the base model first.

        Raises:
            SettingsError: see `SemanticRouter`; or a model is neither served here nor an upstream's.
        """
        router = cls.__new__(cls)
        router._set_up(settings, served, classify, encoder)
        return router

    @classmethod
    def of_settings(cls, settings: RoutingSettings) -> SemanticRouter:
        """Return the router of settings without their server: what it must serve is taken for granted.

        Raises:
            SettingsError: see `SemanticRouter`.
        """
        local = tuple(name for name, model in settings.models.items() if model.upstream is None)
        unknown = settings.default is not None and settings.default not in settings.models
        return cls.of_server(settings, (settings.default or "", *local) if unknown else local)

    def _set_up(
        self,
        settings: RoutingSettings,
        served: Sequence[str],
        classify: Classify | None,
        encoder: Encoder | None,
    ) -> None:
        known = with_default(settings, served)
        check_names(settings, known, served)
        self.settings = settings
        self.models: Mapping[str, Model] = compare(known)
        self.default = next(iter(known))
        self.auto_names = frozenset(settings.auto_names)
        self.strongest = max(self.models.values(), key=lambda model: (model.strength, -model.cheapness))
        self.slow = False
        self._classify = classify or trained_classify
        self._encoder: Callable[[], Encoder] = self._open_encoder if encoder is None else lambda: encoder
        self.policy = Policy(settings, self.models, self.default, "routing", self._encoder)
        self.second = (
            None
            if settings.second is None
            else Policy(settings.second, self.models, self.default, "routing.second", self._encoder)
        )

    def route(
        self,
        prompt: str,
        requirements: Mapping[str, str] | None = None,
        *,
        preference: str | None = None,
        tenant: str | None = None,
        role: str | None = None,
        may_use: Iterable[str] | None = None,
    ) -> str:
        """Return the name of the model that should answer `prompt`.

        Args:
            prompt: any text.
            requirements: ``quality`` and ``cost`` (low, medium, high), ``speed`` (slow, medium, fast).
            preference: the model that the user asks for; it wins.
            tenant: who pays, for rules and for the tenant's requirements.
            role: of the caller, for rules.
            may_use: the models to choose from; None: all.

        Raises:
            InvalidRequirementsError: the requirements are not of that form (a ValueError).
            LookupError: there is no such preference, or `may_use` leaves no model.
        """
        facts = self.facts(of_prompt(prompt), Caller(tenant=tenant, role=role))
        return self._decide(facts, requirements, preference, may_use).model

    def explain(
        self,
        prompt: str,
        requirements: Mapping[str, str] | None = None,
        *,
        preference: str | None = None,
        tenant: str | None = None,
        role: str | None = None,
        may_use: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Return what `route` would, with every signal and score; JSON-serialisable."""
        facts = self.facts(of_prompt(prompt), Caller(tenant=tenant, role=role))
        return self.describe(facts, self._decide(facts, requirements, preference, may_use))

    def facts(
        self,
        asked: Asked,
        caller: Caller,
        load: Callable[[], float] = lambda: 0.0,
        targets: Targets = IDLE,
    ) -> Facts:
        """Return what can be found out of a request."""
        return Facts(asked, caller, self._classify, load, targets)

    def describe(self, facts: Facts, decision: Decision) -> dict[str, Any]:
        """Return a decision with all that it rests on, JSON-serialisable."""
        found = facts.classification
        return {
            "model": decision.model,
            "route": None if decision.route is None else decision.route.name,
            "reason": decision.reason,
            "order": list(decision.order),
            "category": found.category,
            "complexity": round(found.complexity, 4),
            "categories": {name: round(value, 4) for name, value in found.scores.items()},
            "signals": {name: facts.value(name) for name in SIGNALS if name != "prompt"},
            "scores": {
                name: {
                    **{part: round(value, 4) for part, value in asdict(parts).items()},
                    "total": round(parts.total, 4),
                }
                for name, parts in decision.scores.items()
            },
        }

    def _open_encoder(self) -> Encoder:
        opened = open_encoder(self.settings.encoder)
        self.slow = self.settings.encoder.name != "static"
        return opened

    def _decide(
        self,
        facts: Facts,
        requirements: Mapping[str, str] | None,
        preference: str | None,
        may_use: Iterable[str] | None,
    ) -> Decision:
        asked = parse_requirements(requirements or {})
        wanted = preference or asked.model
        allowed = frozenset(self.models if may_use is None else may_use)
        if wanted is not None and wanted not in allowed & set(self.models):
            raise LookupError(f"there is no model {wanted!r} to choose; there are {', '.join(self.models)}")
        levels = asked.levels.over(self.tenant_levels(facts.caller.tenant))
        decision = self.policy.decide(facts, Requirements(levels, wanted), Choice(allowed.__contains__))
        if decision is None:
            raise LookupError(f"there is no model to choose; there are {', '.join(self.models)}")
        return decision

    def tenant_levels(self, tenant: str | None) -> RequirementSettings:
        """Return the requirements that the settings have for a tenant."""
        tenants = self.settings.tenants
        return tenants.get(tenant or "") or tenants.get("default", NO_LEVELS)
