"""The encoder that the wheel carries: a vector per token, averaged. Microseconds, no torch.

``scripts/distill_encoder.py`` makes its files from all-MiniLM-L6-v2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

FILES = Path(__file__).parent / "static"
MAX_TOKENS = 512
_MAX_CHARACTERS = 3_000
"""Enough for ``MAX_TOKENS`` of English; what is longer keeps its start and its end."""
_UNKNOWN = "[UNK]"


class StaticEncoder:
    """The weighted mean of one vector per token.

    Args:
        files: a folder with ``model.npz`` (``vectors``: int8, one row per token id; ``scales``: float32, by
            which a row is multiplied) and ``tokenizer.json``.
    """

    name = "static"

    def __init__(self, files: Path = FILES) -> None:
        with np.load(files / "model.npz", allow_pickle=False) as model:
            self._vectors: NDArray[np.int8] = model["vectors"]
            self._scales: NDArray[np.float32] = model["scales"].copy()
        self._tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._scales[self._tokenizer.token_to_id(_UNKNOWN)] = 0
        self.dimensions = self._vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of unit length per text; a text without a known token gives zeros."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            ids = self._tokenizer.encode(_ends(text), add_special_tokens=False).ids
            if ids:
                np.dot(self._scales[ids], self._vectors[ids].astype(np.float32), out=row)
                length = float(np.sqrt(row @ row))
                if length > 0:
                    row /= length
        return rows


def _ends(text: str) -> str:
    """Return the text, or its two ends, without the half characters that no tokenizer takes."""
    if len(text) > _MAX_CHARACTERS:
        half = _MAX_CHARACTERS // 2
        text = f"{text[:half]} {text[-half:]}"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
