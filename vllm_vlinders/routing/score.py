"""How well a model suits a request: one sum of what it can, what it costs and how busy it is."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_vlinders.routing.models import Model
from vllm_vlinders.settings import RequirementSettings

_QUALITY = {None: 1.0, "low": 0.5, "medium": 1.0, "high": 2.0}
_COST = {None: 0.4, "low": 1.0, "medium": 0.4, "high": 0.0}
_SPEED = {None: 0.2, "slow": 0.0, "medium": 0.2, "fast": 0.6}
_FIT, _LOAD = 0.5, 0.5
_HIGH_QUALITY = 0.75
_LOW_QUALITY_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Score:
    """The parts of a model's score, weighted; `total` is their sum.

    Attributes:
        quality: how nearly it is as strong as the request needs.
        fit: how many of the wanted capabilities it has.
        cost: how cheap it is.
        speed: how fast it is.
        load: at most 0: how busy it is.
        session: what it would cost to leave the model that the session has; 0 where there is none.
    """

    quality: float
    fit: float
    cost: float
    speed: float
    load: float
    session: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return self.quality + self.fit + self.cost + self.speed + self.load + self.session


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs of a model.

    Attributes:
        complexity: the probability that it needs a strong one.
        wants: capabilities that help.
        levels: what is asked for in words.
    """

    complexity: float
    wants: tuple[str, ...]
    levels: RequirementSettings

    @property
    def strength(self) -> float:
        """How strong a model must be not to lose quality, 0 to 1."""
        if self.levels.quality == "high":
            return max(self.complexity, _HIGH_QUALITY)
        if self.levels.quality == "low":
            return self.complexity * _LOW_QUALITY_SHARE
        return self.complexity


def score(model: Model, need: Need, *, load: float = 0.0, session: float = 0.0) -> Score:
    """Return how well `model` suits a request.

    Args:
        model: the model.
        need: what the request needs.
        load: 0 for an idle model, 1 for one that has no room.
        session: added where the model has this session already.
    """
    levels, strength, wanted = need.levels, need.strength, frozenset(need.wants)
    return Score(
        quality=_QUALITY[levels.quality] * (min(1.0, model.strength / strength) if strength > 0 else 1.0),
        fit=_FIT * (len(wanted & model.capabilities) / len(wanted) if wanted else 0.0),
        cost=_COST[levels.cost] * model.cheapness,
        speed=_SPEED[levels.speed] * model.swiftness,
        load=0.0 - _LOAD * load,
        session=session,
    )
