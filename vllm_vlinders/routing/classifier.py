"""What a prompt asks for. Preliminary: the interface stands, the trained heads come with the exemplars."""

from __future__ import annotations

from vllm_vlinders.routing.classification import CATEGORIES, Classification
from vllm_vlinders.routing.signals import read_signals


def classify(prompt: str) -> Classification:
    """Return the category of a prompt, the probability that it is complex, and all scores; never raises."""
    signals = read_signals(prompt)
    if signals.code_language:
        category = "code_completion" if signals.code_incomplete else "code_explanation"
    else:
        category = "math" if signals.formulas else "simple_qa"
    scores = {name: 0.65 if name == category else 0.05 for name in CATEGORIES}
    return Classification(category, min(1.0, signals.words / 200), scores)
