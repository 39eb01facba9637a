"""The models that may answer, on common scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vllm_vlinders.settings import ModelSettings, TokenCost

_SWIFTNESS = {"slow": 0.0, "medium": 0.5, "fast": 1.0}
_WEAKEST = 0.3
_FAR = 20
_ANSWER_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Model:
    """One model; the numbers are 0 to 1, larger is better.

    Attributes:
        name: as requests and settings call it.
        capabilities: what it is good at.
        price: of a thousand tokens.
        swiftness: how fast it is.
        cheapness: 0 for the dearest of all, 1 for a twentieth of its price, logarithmic in between.
        strength: how demanding a task it can be given.
        fallback: who answers in its place.
    """

    name: str
    capabilities: frozenset[str]
    price: TokenCost
    swiftness: float
    cheapness: float
    strength: float
    fallback: tuple[str, ...]

    def cost(self, prompt: int, answer: int) -> float:
        """Return what so many tokens of prompt and answer cost."""
        return (prompt * self.price.input + answer * self.price.output) / 1000


def compare(settings: Mapping[str, ModelSettings]) -> dict[str, Model]:
    """Return the models of the settings, held against each other.

    Where no quality is set, a model is taken to be as strong as it is dear.
    """
    cheapness = _cheapness({name: _mean(model.cost) for name, model in settings.items()})
    return {
        name: Model(
            name=name,
            capabilities=frozenset(model.capabilities),
            price=model.cost,
            swiftness=_SWIFTNESS[model.speed],
            cheapness=cheapness[name],
            strength=1 - (1 - _WEAKEST) * cheapness[name] if model.quality is None else model.quality,
            fallback=model.fallback,
        )
        for name, model in settings.items()
    }


def _mean(cost: TokenCost) -> float:
    return (1 - _ANSWER_SHARE) * cost.input + _ANSWER_SHARE * cost.output


def _cheapness(costs: Mapping[str, float]) -> dict[str, float]:
    """Return how cheap each is: 0 for the dearest, 1 for what costs a twentieth of it or less."""
    most = max(costs.values(), default=0.0)
    return {
        name: min(1.0, math.log(most / max(cost, most / _FAR)) / math.log(_FAR)) if most else 0.0
        for name, cost in costs.items()
    }
