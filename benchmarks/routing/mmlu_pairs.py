"""How well a score tells which questions only the strong model answers: APGR, RouteLLM's measure.

    python benchmarks/routing/mmlu_pairs.py PAIRS

PAIRS is a file of JSON lines with ``prompt``, ``subject``, ``weak_correct`` and ``strong_correct``.
For each share of calls that may go to the strong model, those with the highest scores go. The performance gap
recovered (PGR) is how much of the distance from the weak model's accuracy to the strong model's is gained; its
mean over all shares is the APGR. Random routing has 0.5.

The score is the complexity that classify() gives. It has learnt from no such pair and from none of the
subjects, so all of them are unseen; the interval is that of drawing the subjects anew.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from vllm_vlinders.routing import classify

DRAWS = 500


def apgr(scores, weak, strong):
    """Return the mean of the performance gap recovered over all shares of strong calls, ties in equal parts."""
    gain = strong.astype(float) - weak
    _, level, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    mean_gain = np.bincount(level, gain) / counts
    path = np.concatenate([[0], np.cumsum(mean_gain[np.sort(level)])])
    return float(((path[1:] + path[:-1]) / 2).mean() / gain.sum())


def by_subject(scores, weak, strong, subjects):
    """Return the 2.5th and 97.5th percentile of the APGR when subjects are drawn with replacement."""
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(subjects == subject) for subject in np.unique(subjects)]
    drawn = [np.concatenate([rows[n] for n in rng.integers(len(rows), size=len(rows))]) for _ in range(DRAWS)]
    return np.percentile([apgr(scores[d], weak[d], strong[d]) for d in drawn], [2.5, 97.5])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pairs", type=Path)
    arguments = parser.parse_args()
    pairs = [json.loads(line) for line in arguments.pairs.read_text(encoding="utf-8").splitlines()]
    weak = np.array([pair["weak_correct"] for pair in pairs])
    strong = np.array([pair["strong_correct"] for pair in pairs])
    subjects = np.array([pair["subject"] for pair in pairs])
    prompts = [pair["prompt"] for pair in pairs]
    print(f"{len(pairs)} questions, weak {weak.mean():.3f}, strong {strong.mean():.3f}")
    rng = np.random.default_rng(0)
    chance = [apgr(rng.random(len(pairs)), weak, strong) for _ in range(20)]
    print(f"APGR, random      {np.mean(chance):.3f} (deviation {np.std(chance):.3f})")
    scores = np.array([classify(prompt).complexity for prompt in prompts])
    low, high = by_subject(scores, weak, strong, subjects)
    print(
        f"APGR, complexity  {apgr(scores, weak, strong):.3f} (subjects drawn anew: {low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    main()
