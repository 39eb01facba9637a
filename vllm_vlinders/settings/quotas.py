"""The section ``quotas``: how much principals and tenants may use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.secret import UrlOrReference


class LimitSettings(Section):
    """The limits of one principal or tenant; what is not given is not limited."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1, description="of prompts and answers")
    tokens_per_day: int | None = Field(default=None, ge=1, description="in any 24 hours")
    concurrent_requests: int | None = Field(default=None, ge=1)
    money_per_day: float | None = Field(default=None, gt=0, description="in any 24 hours; see prices")
    money_per_month: float | None = Field(default=None, gt=0, description="in any 30 days; see prices")


class PriceSettings(Section):
    """What a million tokens of a model cost, in the currency of the money limits."""

    input: float = Field(default=0, ge=0)
    output: float = Field(default=0, ge=0)

    def cost(self, prompt: int, completion: int) -> float:
        """Return what so many tokens cost."""
        return (prompt * self.input + completion * self.output) / 1_000_000


class QuotaSettings(Section):
    """Limits, prices, and where usage is counted."""

    principals: dict[str, LimitSettings] = Field(
        default={}, description="by principal; `default` is that of each one that is not named"
    )
    tenants: dict[str, LimitSettings] = Field(
        default={}, description="by tenant; `default` is that of each one that is not named"
    )
    prices: dict[str, PriceSettings] = Field(
        default={}, description="by model; `default` is that of models that are not named"
    )
    default_max_tokens: int | None = Field(
        default=None, ge=1, description="the longest answer to a request that gives no limit of its own"
    )
    state: Path | None = Field(
        default=None,
        description="the file that holds the usage of this server; unset: it starts from nothing each time",
    )
    backend: UrlOrReference = Field(
        default="local", description="local, or redis://… to share the limits with other servers"
    )
    on_outage: Literal["local", "deny"] = Field(
        default="local",
        description="while Redis is down: count in this server alone, or refuse requests with limits",
    )

    def limits_of(self, kind: Literal["principals", "tenants"], name: str) -> LimitSettings:
        """Return the limits of one principal or tenant."""
        known = self.principals if kind == "principals" else self.tenants
        return known.get(name) or known.get("default") or _UNLIMITED

    def price_of(self, model: str | None) -> PriceSettings:
        """Return the price of a model."""
        return self.prices.get(model or "") or self.prices.get("default") or _FREE


_UNLIMITED = LimitSettings()
_FREE = PriceSettings()
