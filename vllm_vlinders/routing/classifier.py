"""What a prompt asks for: a small network on its embedding, its surface and the notions it names.

``scripts/train_classifier.py`` trains the heads on the exemplars of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import exp
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.routing.classification import CATEGORIES, Classification
from vllm_vlinders.routing.encoders import Encoder, create_encoder
from vllm_vlinders.routing.encoders.cached import CachedEncoder
from vllm_vlinders.routing.features import features
from vllm_vlinders.routing.signals import split_signals

HEADS = Path(__file__).parent / "heads"
_REMEMBERED = 64


class Classifier:
    """Classifies prompts with one encoder.

    Args:
        encoder: an encoder that heads were trained for.
        heads: those trained for the encoder, unless others are given; ``hidden`` has a column for each
            dimension of the encoder and each feature, ``output`` a row for each category and one for
            complexity.
    """

    def __init__(self, encoder: Encoder, heads: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        self.encoder = encoder
        arrays = read_heads(encoder.name) if heads is None else heads
        self._hidden, self._hidden_bias = arrays["hidden"], arrays["hidden_bias"]
        self._output, self._output_bias = arrays["output"], arrays["output_bias"]

    def classify(self, prompt: str) -> Classification:
        """Return what any text asks for; never raises."""
        hidden = self._hidden @ features_of([prompt], self.encoder)[0] + self._hidden_bias
        logits: list[float] = (self._output @ np.maximum(hidden, 0) + self._output_bias).tolist()
        highest = max(logits[:-1])
        odds = [exp(logit - highest) for logit in logits[:-1]]
        whole = sum(odds)
        scores = {name: odd / whole for name, odd in zip(CATEGORIES, odds, strict=True)}
        complexity = 1 / (1 + exp(-min(max(logits[-1], -50.0), 50.0)))
        return Classification(max(scores, key=scores.__getitem__), complexity, scores)


def read_heads(encoder_name: str) -> dict[str, NDArray[np.float32]]:
    """Return the heads that were trained for an encoder.

    Raises:
        FileNotFoundError: none were.
    """
    with np.load(HEADS / f"{encoder_name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def features_of(prompts: Sequence[str], encoder: Encoder) -> NDArray[np.float32]:
    """Return one row per prompt: its embedding, then its features."""
    read = [split_signals(prompt) for prompt in prompts]
    embedded = encoder.encode([prose for _, prose, _ in read])
    surface = np.array([features(signals, prose, code) for signals, prose, code in read])
    return np.concatenate([embedded, surface], axis=1)


@cache
def default_classifier() -> Classifier:
    """Return the classifier of the static encoder, loaded on first use.

    The encoder remembers a few prompts, no more: a policy's routes ask for the one that was just classified.
    """
    return Classifier(CachedEncoder(create_encoder("static"), size=_REMEMBERED))


def classify(prompt: str) -> Classification:
    """Return the category of a prompt, the probability that it is complex, and all scores; never raises."""
    return default_classifier().classify(prompt)
