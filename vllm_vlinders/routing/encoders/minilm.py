"""The sentence encoder itself, by transformers on the CPU: milliseconds a prompt, nearer to its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.routing.encoders.text import ends

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256
_MAX_CHARACTERS = 1_500
_BATCH = 32


class MiniLmEncoder:
    """Mean of the last hidden states of a sentence encoder of BERT's kind.

    Args:
        model: a folder, or a name that transformers finds in its cache or on the hub.
        threads: how many threads torch may use in this process; None leaves them as they are.
    """

    name = "minilm"

    def __init__(self, model: Path | str = MODEL, threads: int | None = None) -> None:
        import torch
        from transformers import AutoTokenizer, BertModel

        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(model))
        self._model: Any = BertModel.from_pretrained(str(model)).eval()
        self.dimensions = int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of unit length per text; a blank text gives zeros."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        given = [number for number, text in enumerate(texts) if text.strip()]
        given.sort(key=lambda number: len(texts[number]))
        for first in range(0, len(given), _BATCH):
            batch = given[first : first + _BATCH]
            rows[batch] = self._encode([ends(texts[number], _MAX_CHARACTERS) for number in batch])
        return rows

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with self._torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1)
            unit: NDArray[np.float32] = self._torch.nn.functional.normalize(means).numpy()
        return unit
