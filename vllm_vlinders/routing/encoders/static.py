"""The encoder that the wheel carries: a vector per token, averaged. Microseconds, numpy alone.

``scripts/distill_encoder.py`` makes its files from all-MiniLM-L6-v2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.routing.encoders.text import ends
from vllm_vlinders.routing.encoders.wordpiece import WordPiece

FILES = Path(__file__).parent / "static"
MAX_TOKENS = 512
_MAX_CHARACTERS = 3_000
"""Enough for ``MAX_TOKENS`` of English."""
_SHORTEST = 1e-9


class StaticEncoder:
    """The weighted mean of one vector per token.

    Args:
        files: a folder with ``model.npz`` (``vectors``: int8, one row per token; ``scales``: float32, by
            which a row is multiplied) and ``vocab.txt``.
    """

    name = "static"

    def __init__(self, files: Path = FILES) -> None:
        with np.load(files / "model.npz", allow_pickle=False) as model:
            self._vectors: NDArray[np.int8] = model["vectors"]
            self._scales: NDArray[np.float32] = model["scales"]
        self._tokens = WordPiece(files / "vocab.txt")
        self.dimensions = self._vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of unit length per text; a text without a known token gives zeros."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for number, text in enumerate(texts):
            ids = self._tokens.encode(ends(text, _MAX_CHARACTERS), MAX_TOKENS)
            if ids:
                places = np.array(ids)
                row = self._scales[places] @ self._vectors[places].astype(np.float32)
                rows[number] = row / max(float(np.sqrt(row @ row)), _SHORTEST)
        return rows
