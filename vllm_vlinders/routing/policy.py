"""One policy: rules first, by priority; then the score; then the default."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.routing.default_routes import DEFAULT_ROUTES
from vllm_vlinders.routing.encoders import Encoder
from vllm_vlinders.routing.facts import Facts
from vllm_vlinders.routing.models import Model
from vllm_vlinders.routing.requirements import NO_LEVELS, NONE, Requirements
from vllm_vlinders.routing.rules import Condition, Known, compile_rule
from vllm_vlinders.routing.score import Need, Score, score
from vllm_vlinders.routing.similarity import Similarity, texts_of
from vllm_vlinders.settings import PolicySettings, RouteSettings

_PREFIX_WORTH = 0.3
_HALF_WORTH_CHARACTERS = 8000


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model answers, and why.

    Attributes:
        model: its name.
        reason: ``preference``, ``route``, ``fallback`` (of the route's model), ``score``, ``session`` or ``default``.
        route: the route that matched, or None.
        order: the model, then who answers if it cannot, in order; of a route with models those and their fallbacks.
        scores: of all models that were weighed.
    """

    model: str
    reason: str
    route: RouteSettings | None
    order: tuple[str, ...]
    scores: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a decision may choose from.

    Attributes:
        may_use: whether the caller may use a model.
        previous: the model that the session had, or None.
    """

    may_use: Callable[[str], bool] = lambda _name: True
    previous: str | None = None


class Policy:
    """Routes and weights; decides, and keeps nothing.

    Args:
        settings: the policy.
        models: who may answer.
        default: who answers otherwise, one of `models`.
        path: the dotted key of the policy, for messages.
        encoder: returns what turns utterances into vectors; called only where there are any.

    Raises:
        SettingsError: a route names an unknown model or signal, or two have one name.
    """

    def __init__(
        self,
        settings: PolicySettings,
        models: Mapping[str, Model],
        default: str,
        path: str,
        encoder: Callable[[], Encoder],
    ) -> None:
        self.settings, self.models, self.default = settings, models, default
        _check_names(settings.routes, models, path)
        named = {route.name for route in settings.routes}
        defaults = DEFAULT_ROUTES if settings.default_routes else ()
        routes = [*settings.routes, *(route for route in defaults if route.name not in named)]
        known = Known(tuple(models), encoder)
        self._conditions: dict[str, Condition] = {
            route.name: compile_rule(route.when, _when_path(route, settings.routes, path), known)
            for route in routes
            if route.when
        }
        self._routes = sorted(routes, key=lambda route: -route.priority)
        self._similarity = Similarity(self._routes, encoder)
        self._unlike = tuple(at for at, route in enumerate(self._routes) if not texts_of(route))

    def decide(
        self, facts: Facts, requirements: Requirements = NONE, choice: Choice | None = None
    ) -> Decision | None:
        """Choose a model; None where the caller may use none."""
        choice = choice or Choice()
        allowed = [name for name in self.models if choice.may_use(name)]
        usable = [name for name in allowed if facts.targets.usable(name)] or allowed
        if not usable:
            return None
        if requirements.model in usable:
            return self._decision(requirements.model, "preference", None, usable, {})
        route = self.matching(facts, allowed)
        candidates: list[str] = []
        if route is not None and route.models:
            usable = self._targets(route, usable) or self._targets(route, allowed)
            candidates = [name for name in usable if name in route.models] or usable[:1]
        if len(candidates) == 1:
            reason = "route" if route is None or candidates[0] in route.models else "fallback"
            return self._decision(candidates[0], reason, route, usable, {})
        if route is None and self.default in usable:
            if choice.previous not in usable or choice.previous == self.default:
                return self._decision(self.default, "default", None, usable, {})
            candidates = [self.default, choice.previous]
        return self._by_score(facts, requirements, route, _Given(choice, candidates or usable, usable))

    def matching(self, facts: Facts, allowed: Collection[str]) -> RouteSettings | None:
        """Return the first route that matches; one does not that leaves none of the `allowed` models."""
        for at in self._in_order(self._similarity.near(facts)):
            route = self._routes[at]
            if route.models and not self._targets(route, allowed):
                continue
            condition = self._conditions.get(route.name)
            if condition is None or condition(facts):
                return route
        return None

    def _in_order(self, near: list[int]) -> Iterable[int]:
        """Return the places of the routes to look at: those in `near`, nearest first, and those without texts.

        The order is that of the settings, but those in `near` that have the same priority share their
        places: the nearest stands in the first of them.
        """
        if not near:
            return self._unlike
        places = sorted(near)  # the highest priority first, and so are those that take them
        taken = dict(zip(places, sorted(near, key=lambda at: -self._routes[at].priority), strict=True))
        return [taken.get(at, at) for at in sorted((*self._unlike, *places))]

    def _targets(self, route: RouteSettings, names: Collection[str]) -> list[str]:
        """Return who of `names` answers for a route: its models, then those that stand in for one of them."""
        others = (other for name in route.models for other in self.models[name].fallback)
        return [name for name in dict.fromkeys((*route.models, *others)) if name in names]

    def _by_score(
        self, facts: Facts, requirements: Requirements, route: RouteSettings | None, given: _Given
    ) -> Decision:
        levels = requirements.levels
        levels = levels.over(NO_LEVELS if route is None else route.requirements)
        levels = levels.over(self.settings.requirements)
        choice, candidates = given.choice, given.candidates
        need = Need(facts.classification.complexity, () if route is None else route.wants, levels)
        scores = {
            name: score(
                self.models[name],
                need,
                load=facts.targets.load(name),
                session=self._worth_of_staying(facts) if name == choice.previous else 0.0,
            )
            for name in candidates
        }
        # Of models that are as good, the default answers, else the first of the settings.
        best = max(candidates, key=lambda name: (scores[name].total, name == self.default))
        reason = "score"
        if best == choice.previous:
            reason = self._reason_to_stay(best, scores)
        return self._decision(best, reason, route, given.usable, scores)

    def _reason_to_stay(self, best: str, scores: Mapping[str, Score]) -> str:
        alone = {name: parts.total - parts.session for name, parts in scores.items()}
        return "score" if alone[best] == max(alone.values()) else "session"

    def _worth_of_staying(self, facts: Facts) -> float:
        """Return by how much a model must be better that takes over a session: its KV prefix is lost."""
        context = facts.asked.context
        return self.settings.session_margin + _PREFIX_WORTH * context / (context + _HALF_WORTH_CHARACTERS)

    def _decision(
        self,
        model: str,
        reason: str,
        route: RouteSettings | None,
        usable: list[str],
        scores: Mapping[str, Score],
    ) -> Decision:
        others = sorted(scores, key=lambda name: -scores[name].total)
        last = usable if route is not None and route.models else [self.default]
        order = [model, *self.models[model].fallback, *others, *last]
        return Decision(
            model, reason, route, tuple(dict.fromkeys(name for name in order if name in usable)), scores
        )


@dataclass(frozen=True, slots=True)
class _Given:
    choice: Choice
    candidates: list[str]
    usable: list[str]


def _check_names(routes: tuple[RouteSettings, ...], models: Mapping[str, Model], path: str) -> None:
    places: dict[str, int] = {}
    for place, route in enumerate(routes):
        first = places.setdefault(route.name, place)
        if first != place:
            raise SettingsError(
                f"{path}.routes.{place}.name: {route.name!r} is the name of routes.{first}, too"
            )
        for number, name in enumerate(route.models):
            if name not in models:
                raise SettingsError(
                    f"{path}.routes.{place}.models.{number}: there is no model {name!r}; "
                    f"there are {', '.join(models)}"
                )


def _when_path(route: RouteSettings, routes: tuple[RouteSettings, ...], path: str) -> str:
    place = routes.index(route) if route in routes else route.name
    return f"{path}.routes.{place}.when"
