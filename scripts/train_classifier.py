#!/usr/bin/env python3
"""Train the classifier's heads on the exemplars of the package, and on nothing else.

    scripts/train_classifier.py                       # for the static encoder
    scripts/train_classifier.py --encoder minilm --model DIR

Prompts about code are put together here from what people say and from whole or cut snippets. Each prompt is
also learnt the way it might have been typed in haste. The random choices are seeded: the same exemplars give
the same heads, up to the platform's floating point.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vllm_vlinders.routing.classification import CATEGORIES
from vllm_vlinders.routing.classifier import HEADS, features_of
from vllm_vlinders.routing.encoders import create_encoder
from vllm_vlinders.routing.exemplars import Exemplar, code_requests, snippets, written_prompts

SEED = 7
STEPS = 400
CATEGORY_DECAY = 2e-3
COMPLEXITY_DECAY = 1e-2
OPENINGS = ("hi, ", "hello ", "please ", "can you ", "hey ", "could you please ", "I need help. ", "Hi there! ", "ok now ", "")


def assembled(rng: random.Random) -> list[Exemplar]:
    """Return prompts about code: whole code to explain or change, cut code to complete."""
    codes = snippets()
    made = []
    for category in ("code_explanation", "code_generation", "code_completion"):
        for request in code_requests(category):
            for code in rng.sample(codes, 4):
                cut = category == "code_completion" and rng.random() < 0.85
                made.append(Exemplar(placed(request, cut_off(code, rng) if cut else code, rng), category, complex=category == "code_generation" and rng.random() < 0.5))
    for code in codes:
        made += [Exemplar(cut_off(code, rng), "code_completion", complex=False) for _ in range(4)]
        made += [Exemplar(stub, "code_completion", complex=False) for stub in stubs(code)]
        made.append(Exemplar(code, "code_explanation", complex=False))
    return made


def placed(request: str, code: str, rng: random.Random) -> str:
    """Return the request with the code behind or before it, in a fence or bare."""
    fenced = rng.random() < 0.4
    body = f"```\n{code}\n```" if fenced else code
    if rng.random() < 0.75:
        return f"{request}{rng.choice(['', ':', '?', ''])}{rng.choice([chr(10), chr(10) * 2])}{body}"
    return f"{body}\n\n{request}"


def cut_off(code: str, rng: random.Random) -> str:
    """Return the start of the code, cut at a line or within one."""
    lines = code.split("\n")
    kept = lines[: max(1, int(len(lines) * rng.uniform(0.3, 0.9)))]
    if rng.random() < 0.4 and len(kept[-1]) > 6:
        kept[-1] = kept[-1][: rng.randint(3, len(kept[-1]) - 1)]
    return "\n".join(kept)


def stubs(code: str) -> list[str]:
    """Return the head of a Python function with its docstring alone."""
    for quotes in ('"""', "'''"):
        if code.count(quotes) == 2:
            head = code[: code.index(quotes, code.index(quotes) + 3) + 3]
            return [head, f"\n{head}\n", f"\n\n{head}", f"from typing import List\n\n\n{head}\n"]
    return []


def hasty(prompt: str, rng: random.Random) -> str:
    """Return the prompt as somebody in a hurry types it."""
    if rng.random() < 0.3:
        prompt = rng.choice(OPENINGS) + prompt
    if rng.random() < 0.4:
        prompt = prompt.lower()
    elif rng.random() < 0.3:
        prompt = prompt[:1].upper() + prompt[1:]
    if rng.random() < 0.3:
        prompt = prompt.rstrip(".?! ")
    elif rng.random() < 0.2:
        prompt = f"{prompt.rstrip('.?! ')}{rng.choice(['.', '?', '??', ' please', ' thanks', '...'])}"
    if rng.random() < 0.25 and len(prompt) > 12:
        at = rng.randrange(len(prompt) - 2)
        prompt = prompt[:at] + rng.choice([prompt[at + 1] + prompt[at], "", prompt[at] * 2]) + prompt[at + 2 :]
    return prompt


def lesson(rng: random.Random) -> list[Exemplar]:
    """Return all that is learnt from, each in two hasty variants too."""
    written = written_prompts()
    varied = [Exemplar(hasty(e.prompt, rng), e.category, e.complex) for e in written for _ in range(2)]
    return written + varied + assembled(rng)


def fit(rows: NDArray[np.float32], targets: torch.Tensor, weights: torch.Tensor, outputs: int, decay: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights and biases of a (multinomial) logistic regression with an L2 penalty."""
    features = torch.from_numpy(rows)
    layer = torch.nn.Linear(rows.shape[1], outputs)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        out = layer(features)
        if outputs == 1:
            each = torch.nn.functional.binary_cross_entropy_with_logits(out[:, 0], targets, reduction="none")
        else:
            each = torch.nn.functional.cross_entropy(out, targets, reduction="none")
        total = (each * weights).sum() / weights.sum() + decay * layer.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def balanced(labels: list[int]) -> torch.Tensor:
    """Return weights under which each label counts as much as any other."""
    counts = np.bincount(labels)
    return torch.tensor([1 / counts[label] for label in labels], dtype=torch.float32)


def train(exemplars: list[Exemplar], encoder_name: str, model: Path | None = None) -> dict[str, NDArray[np.float32]]:
    """Return the heads for an encoder."""
    encoder = create_encoder(encoder_name, model=model) if model else create_encoder(encoder_name)
    rows = features_of([e.prompt for e in exemplars], encoder)
    scale = 1 / np.maximum(rows.std(0), 0.02)
    centre = rows.mean(0)
    dimensions = encoder.encode(["x"]).shape[1]
    scale[:dimensions] = 1 / rows[:, :dimensions].std()
    standard = ((rows - centre) * scale).astype(np.float32)
    categories = [CATEGORIES.index(e.category) for e in exemplars]
    kinds = [categories[i] * 2 + exemplars[i].complex for i in range(len(exemplars))]
    weight, bias = fit(standard, torch.tensor(categories), balanced(categories), len(CATEGORIES), CATEGORY_DECAY)
    complexity = torch.tensor([float(e.complex) for e in exemplars])
    hard, hard_bias = fit(standard, complexity, balanced(kinds), 1, COMPLEXITY_DECAY)
    weights = np.concatenate([weight, hard]) * scale
    return {"weights": weights.astype(np.float32), "biases": (np.concatenate([bias, hard_bias]) - weights @ centre).astype(np.float32)}


def main() -> None:
    """Write the heads of one encoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="static", choices=("static", "minilm"))
    parser.add_argument("--model", type=Path, default=None, help="minilm: the folder of the model")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    exemplars = lesson(random.Random(SEED))
    heads = train(exemplars, arguments.encoder, arguments.model)
    np.savez(HEADS / f"{arguments.encoder}.npz", **heads)
    print(f"{len(exemplars)} prompts, {heads['weights'].shape[1]} features: {HEADS / arguments.encoder}.npz")


if __name__ == "__main__":
    main()
