"""Which routes a prompt is like: the nearest of each route's utterances, all in one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vllm_vlinders.routing.encoders import Encoder
from vllm_vlinders.routing.facts import Facts
from vllm_vlinders.settings import RouteSettings


class Similarity:
    """The utterances and descriptions of routes, encoded once.

    Args:
        routes: all routes, also those that have neither.
        encoder: returns the encoder; called only where there is something to encode.
    """

    def __init__(self, routes: Sequence[RouteSettings], encoder: Callable[[], Encoder]) -> None:
        described = [(route, _texts(route)) for route in routes]
        described = [(route, texts) for route, texts in described if texts]
        self._names = [route.name for route, _ in described]
        self._known = frozenset(self._names)
        if not described:
            return
        self._encoder = encoder()
        self._rows = self._encoder.encode([text for _, texts in described for text in texts])
        counts = [len(texts) for _, texts in described]
        self._starts = np.cumsum([0, *counts[:-1]])
        self._thresholds = np.array([route.threshold for route, _ in described], dtype=np.float32)

    def has(self, name: str) -> bool:
        """Tell whether the route of that name is matched by likeness."""
        return name in self._known

    def near(self, facts: Facts) -> dict[str, float]:
        """Return the routes that the prompt is like enough, with how like it is, -1 to 1."""
        if not self._names or not facts.asked.prompt:
            return {}
        likeness = np.maximum.reduceat(
            self._rows @ self._encoder.encode([facts.asked.prompt])[0], self._starts
        )
        return {self._names[at]: float(likeness[at]) for at in np.flatnonzero(likeness >= self._thresholds)}


def _texts(route: RouteSettings) -> list[str]:
    return [text for text in (*route.utterances, route.description) if text.strip()]
