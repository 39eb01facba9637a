"""A memory of texts that come again: a prompt for the classifier and the routes, retries, system prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.routing.encoders.base import Encoder


class CachedEncoder:
    """Remembers the rows of the texts that were asked for last.

    Args:
        encoder: asked for what is not remembered.
        size: how many rows are remembered at most.
        longest: longer texts are not remembered, so that memory has a bound; in characters.
    """

    def __init__(self, encoder: Encoder, size: int = 4096, longest: int = 4096) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._size = size
        self._longest = longest
        self._rows: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the rows of the texts; those not remembered are encoded in one call."""
        with self._lock:
            rows = [self._recall(text) for text in texts]
        missing = [number for number, row in enumerate(rows) if row is None]
        if missing or not rows:
            fresh = self._encoder.encode([texts[number] for number in missing])
            for number, row in zip(missing, fresh, strict=True):
                rows[number] = row
            with self._lock:
                for number in missing:
                    self._remember(texts[number], rows[number])
            if not rows:
                return fresh
        return np.array([row for row in rows if row is not None])

    def _recall(self, text: str) -> NDArray[np.float32] | None:
        row = self._rows.get(text)
        if row is not None:
            self._rows.move_to_end(text)
        return row

    def _remember(self, text: str, row: NDArray[np.float32] | None) -> None:
        if row is None or len(text) > self._longest:
            return
        row.setflags(write=False)
        self._rows[text] = row
        if len(self._rows) > self._size:
            self._rows.popitem(last=False)
