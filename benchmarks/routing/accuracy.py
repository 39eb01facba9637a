"""How often classify() names the category that people gave a prompt, and how well it ranks complexity.

    python benchmarks/routing/accuracy.py
    python benchmarks/routing/accuracy.py PROMPTS
    python benchmarks/routing/accuracy.py PROMPTS --encoder minilm --model DIR
    python benchmarks/routing/accuracy.py PROMPTS --also-learn

PROMPTS is a file of JSON lines with ``prompt``, ``category``, ``complexity`` (simple or complex) and
``source``; as it is given, ``prompts.jsonl`` beside this script, whose prompts were written and labelled for
this project without sight of the exemplars and of the answers. Nothing that is shipped has learnt from
either, so each source is unseen. ``--also-learn`` shows what would come of it: heads that learn from the
exemplars and from all sources but the one they are tested on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from vllm_vlinders.routing import CATEGORIES
from vllm_vlinders.routing.classifier import Classifier
from vllm_vlinders.routing.encoders import create_encoder
from vllm_vlinders.routing.exemplars import Exemplar

SCRIPTS = Path(__file__).parents[2] / "scripts"


def auc(scores, positive):
    """Return the probability that a positive has a higher score than a negative, ties counting half."""
    values, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    n = positive.sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(values[index]) - n))


def figures(rows, answers):
    """Return {source: accuracy}, over all, and the AUC of complexity."""
    right = np.array([a.category == r["category"] for r, a in zip(rows, answers, strict=True)])
    sources = np.array([r["source"].split(" (")[0] for r in rows])
    hard = np.array([r["complexity"] == "complex" for r in rows])
    by_source = {s: (right[sources == s].mean(), int((sources == s).sum())) for s in sorted(set(sources))}
    return by_source, right.mean(), auc(np.array([a.complexity for a in answers]), hard)


def table(rows, answers):
    by_source, overall, ranking = figures(rows, answers)
    print("| source | prompts | category right |\n|---|---|---|")
    for source, (share, count) in by_source.items():
        print(f"| {source} | {count} | {share:.3f} |")
    print(f"| all | {len(rows)} | {overall:.3f} |")
    print(f"\nmean over sources {np.mean([share for share, _ in by_source.values()]):.3f}")
    print(f"AUC of complexity {ranking:.3f}\n")
    wrong = Counter((r["category"], a.category) for r, a in zip(rows, answers, strict=True))
    for (given, answered), count in wrong.most_common():
        if given != answered:
            print(f"{count:4} {given} -> {answered}")


def left_out(rows, encoder, model):
    """Return the answers of heads that learnt from the exemplars and from all other sources."""
    sys.path.insert(0, str(SCRIPTS))
    from lesson import lesson
    from train_classifier import SEED, train

    exemplars = lesson(random.Random(SEED))
    answers = [None] * len(rows)
    for source in sorted({row["source"] for row in rows}):
        others = [
            Exemplar(r["prompt"], r["category"], r["complexity"] == "complex")
            for r in rows
            if r["source"] != source
        ]
        classifier = Classifier(encoder, heads=train([*exemplars, *others], encoder.name, model))
        for number, row in enumerate(rows):
            if row["source"] == source:
                answers[number] = classifier.classify(row["prompt"])
    return answers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("prompts", type=Path, nargs="?", default=Path(__file__).parent / "prompts.jsonl")
    parser.add_argument("--encoder", default="static", choices=("static", "minilm"))
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--also-learn", action="store_true")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.prompts.read_text(encoding="utf-8").splitlines()]
    assert {row["category"] for row in rows} <= set(CATEGORIES)
    options = {"model": arguments.model} if arguments.model else {}
    encoder = create_encoder(arguments.encoder, **options)
    if arguments.also_learn:
        answers = left_out(rows, encoder, arguments.model)
    else:
        classifier = Classifier(encoder)
        answers = [classifier.classify(row["prompt"]) for row in rows]
    table(rows, answers)


if __name__ == "__main__":
    main()
