"""The section ``metrics``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from vllm_vlinders.settings.base import Section

PrincipalField = Literal["role", "principal"]
TAKEN_LABELS = ("tenant", "model", "band", "route", "status", "kind", "le")


class MetricsSettings(Section):
    """What is counted of requests, and how finely."""

    enabled: bool = Field(default=True, description="whether requests are counted")
    max_tenants: int = Field(
        default=100, ge=1, le=10_000, description="most tenants with series of their own; others are `other`"
    )
    labels: dict[str, PrincipalField] = Field(
        default={},
        description="more labels of requests, tokens and cost: from a label's name to `role` or `principal`",
    )

    @field_validator("labels")
    @classmethod
    def _usable_names(cls, value: dict[str, PrincipalField]) -> dict[str, PrincipalField]:
        for name in value:
            if not name.isidentifier() or not name.isascii() or name.startswith("_") or name in TAKEN_LABELS:
                message = f"{name!r} cannot be a label: give letters, digits and _, none of {TAKEN_LABELS}"
                raise ValueError(message)
        return value
