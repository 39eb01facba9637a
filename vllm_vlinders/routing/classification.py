"""What is known of a prompt once it is classified (leaf)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CATEGORIES = (
    "code_completion",
    "code_generation",
    "code_explanation",
    "architecture_design",
    "simple_qa",
    "math",
    "creative_writing",
    "analysis",
)
"""The kinds of work a prompt can ask for, in the order of the classifier's outputs."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What a prompt asks for.

    Attributes:
        category: one of ``CATEGORIES``, that with the highest score.
        complexity: the probability, 0 to 1, that the prompt wants a strong model.
        scores: the probability of each category; they sum to 1.
    """

    category: str
    complexity: float
    scores: Mapping[str, float]
