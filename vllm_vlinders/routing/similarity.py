"""Which routes a prompt is like: the nearest of each route's utterances, all in one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.errors import EncoderError, SettingsError
from vllm_vlinders.routing.encoders import Encoder
from vllm_vlinders.routing.facts import Facts
from vllm_vlinders.settings import RouteSettings


class Similarity:
    """The utterances and descriptions of routes, encoded once.

    Args:
        routes: all routes, also those that have neither.
        encoder: returns the encoder; called only where there is something to encode.

    Raises:
        SettingsError: the encoder cannot encode them.
    """

    def __init__(self, routes: Sequence[RouteSettings], encoder: Callable[[], Encoder]) -> None:
        texts = [(at, route.threshold, text) for at, route in enumerate(routes) for text in texts_of(route)]
        if not texts:
            self._places = np.empty(0, dtype=np.intp)
            return
        self._encoder = encoder()
        try:
            self._rows = self._encoder.encode([text for _, _, text in texts])
        except EncoderError as error:
            raise SettingsError(f"routing.encoder: {error}") from None
        self._places = np.array([at for at, _, _ in texts], dtype=np.intp)
        self._thresholds = np.array([threshold for _, threshold, _ in texts], dtype=np.float32)

    def near(self, facts: Facts) -> list[int]:
        """Return the places of the routes that the prompt is like enough, the nearest first."""
        if not self._places.size or not facts.asked.prompt:
            return []
        likeness = likeness_of(self._rows, self._encoder.encode([facts.asked.prompt])[0])
        enough = np.flatnonzero(likeness >= self._thresholds)
        nearest = enough[np.argsort(-likeness[enough], kind="stable")]
        return list(dict.fromkeys(self._places[nearest].tolist()))


def likeness_of(rows: NDArray[np.float32], row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the dot product of `row` with each of `rows`.

    Row by row, in this thread: BLAS divides a product of all among threads, and waits for them where cores are busy.
    """
    products: NDArray[np.float32] = np.vecdot(rows, row)
    return products


def texts_of(route: RouteSettings) -> list[str]:
    """Return the texts that a prompt must be like, none where likeness does not count."""
    return [text for text in (*route.utterances, route.description) if text.strip()]
