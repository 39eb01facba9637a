#!/usr/bin/env python3
"""Train the classifier's heads on the exemplars of the package, and on nothing else.

    scripts/train_classifier.py                       # for the static encoder
    scripts/train_classifier.py --encoder minilm --model DIR

A few small networks (one hidden layer) are trained from different seeds; their mean, which is again one such
network, is what is stored. The random choices are seeded: the same exemplars give the same heads, up to the
platform's floating point.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lesson import lesson
from vllm_vlinders.routing.classification import CATEGORIES
from vllm_vlinders.routing.classifier import HEADS, features_of
from vllm_vlinders.routing.encoders import create_encoder
from vllm_vlinders.routing.exemplars import Exemplar

SEED = 7
NETWORKS = 4
HIDDEN = 128
EPOCHS = 60
BATCH = 128
DROPOUT = (0.2, 0.3)
RATE = 4e-3
DECAY = 0.1
SMOOTHING = 0.05
LEAST_DEVIATION = 0.02
VARIANTS = {"static": 2, "minilm": 0}
"""Hasty variants of each prompt: MiniLM hardly notices haste, and takes its time for each."""


@dataclass(frozen=True)
class Lessons:
    """Standardized features, what they stand for, and how much each counts."""

    features: torch.Tensor
    categories: torch.Tensor
    complexities: torch.Tensor
    category_weights: torch.Tensor
    complexity_weights: torch.Tensor


def network(lessons: Lessons, seed: int) -> torch.nn.Sequential:
    """Return a trained network: one output per category, then one for complexity."""
    torch.manual_seed(seed)
    count, inputs = lessons.features.shape
    layers = torch.nn.Sequential(
        torch.nn.Dropout(DROPOUT[0]),
        torch.nn.Linear(inputs, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Dropout(DROPOUT[1]),
        torch.nn.Linear(HIDDEN, len(CATEGORIES) + 1),
    )
    optimizer = torch.optim.AdamW(layers.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(count).split(BATCH):
            optimizer.zero_grad()
            loss(lessons, batch, layers(lessons.features[batch])).backward()
            optimizer.step()
            schedule.step()
    return layers.eval()


def loss(lessons: Lessons, batch: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Return the cross entropies of category and of complexity."""
    category = torch.nn.functional.cross_entropy(
        out[:, :-1], lessons.categories[batch], reduction="none", label_smoothing=SMOOTHING
    )
    complexity = torch.nn.functional.binary_cross_entropy_with_logits(
        out[:, -1], lessons.complexities[batch], reduction="none"
    )
    weighted = category * lessons.category_weights[batch] + complexity * lessons.complexity_weights[batch]
    return weighted.mean()


def balanced(labels: list[int]) -> torch.Tensor:
    """Return weights of mean 1 that lie between counting each label alike and counting each prompt alike.

    Were labels to count alike, a few hard questions would outweigh a thousand easy ones.
    """
    counts = np.bincount(labels)
    weights = torch.tensor([counts[label] ** -0.5 for label in labels], dtype=torch.float32)
    return weights / weights.mean()


def train(
    exemplars: list[Exemplar], encoder_name: str, model: Path | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays that a ``Classifier`` reads."""
    encoder = create_encoder(encoder_name, model=model) if model else create_encoder(encoder_name)
    rows = features_of([exemplar.prompt for exemplar in exemplars], encoder)
    embedded = encoder.encode(["x"]).shape[1]
    scale = 1 / np.maximum(rows.std(0), LEAST_DEVIATION)
    scale[:embedded] = 1 / rows[:, :embedded].std()
    centre = rows.mean(0)
    categories = [CATEGORIES.index(exemplar.category) for exemplar in exemplars]
    kinds = [
        2 * category + exemplar.complex for category, exemplar in zip(categories, exemplars, strict=True)
    ]
    lessons = Lessons(
        features=torch.from_numpy(((rows - centre) * scale).astype(np.float32)),
        categories=torch.tensor(categories),
        complexities=torch.tensor([float(exemplar.complex) for exemplar in exemplars]),
        category_weights=balanced(categories),
        complexity_weights=balanced(kinds),
    )
    return merged([network(lessons, seed) for seed in range(NETWORKS)], centre, scale)


def merged(
    networks: list[torch.nn.Sequential], centre: NDArray[np.float32], scale: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Return the mean of the networks as one, which takes features as they are."""
    layers = [[p.detach().numpy() for p in network.parameters()] for network in networks]
    hidden = np.concatenate([layer[0] for layer in layers]) * scale
    return {
        "hidden": hidden.astype(np.float32),
        "hidden_bias": (np.concatenate([layer[1] for layer in layers]) - hidden @ centre).astype(np.float32),
        "output": (np.concatenate([layer[2] for layer in layers], axis=1) / len(layers)).astype(np.float32),
        "output_bias": np.mean([layer[3] for layer in layers], axis=0).astype(np.float32),
    }


def main() -> None:
    """Write the heads of one encoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="static", choices=("static", "minilm"))
    parser.add_argument("--model", type=Path, default=None, help="minilm: the folder of the model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    variants = VARIANTS[arguments.encoder]
    exemplars = lesson(random.Random(SEED), variants)  # noqa: S311 - exercises, not secrets.
    arrays = train(exemplars, arguments.encoder, arguments.model)
    target = HEADS / f"{arguments.encoder}.npz"
    np.savez(target, allow_pickle=False, **arrays)
    print(f"{target}: {len(exemplars)} prompts, {arrays['hidden'].shape[1]} features")


if __name__ == "__main__":
    main()
