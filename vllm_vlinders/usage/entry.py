"""One line of the ledger."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """What is summed up in one line: a day (of UTC, ``2026-11-21``), a tenant, a model."""

    day: str
    tenant: str
    model: str


class Amounts(NamedTuple):
    """What is summed up: `cached` tokens are part of `prompt`, `cost` is in the currency of the prices."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions."""
        return self.prompt + self.completion

    def plus(self, other: Amounts) -> Amounts:
        """Return the sums."""
        return Amounts(
            self.requests + other.requests,
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.cost + other.cost,
        )


class Loss(NamedTuple):
    """What could not be stored, and the day it is counted on."""

    day: str
    requests: int = 0
    tokens: int = 0
