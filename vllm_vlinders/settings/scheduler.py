"""The section ``scheduler``."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from vllm_vlinders.settings.base import Section

BandName = Literal["normal", "low", "medium", "high", "urgent"]
POLICY_NAMES = ("fcfs", "priority", "fair", "sjf", "round_robin", "deadline")
_OWN_POLICY = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class PreemptionSettings(Section):
    """When a running request makes room for a more urgent one that waits."""

    enabled: bool = True
    min_gap: int = Field(default=50, ge=1, description="least difference of the two priorities")
    max_per_second: int = Field(default=4, ge=1, description="most preemptions in any second")
    cooldown_seconds: float = Field(
        default=10, ge=0, description="how long a request that made room is spared"
    )


class LocalitySettings(Section):
    """Preference for requests whose prefix is cached, among tenants that have been served alike."""

    slack_tokens: float = Field(
        default=0, ge=0, description="how much weighted service may differ among equals; 0: pure fairness"
    )
    window: int = Field(default=16, ge=1, description="how many requests are compared")


class PriorityLimits(Section):
    """The priorities of a tenant."""

    default: int = Field(default=0, ge=0, le=1000, description="where a request gives none")
    cap: int = Field(default=1000, ge=0, le=1000, description="the highest; what is above counts as this")


class TenantSettings(Section):
    """What one tenant may have."""

    weight: float = Field(default=1, gt=0, allow_inf_nan=False, description="share of the service")
    priority: PriorityLimits = PriorityLimits()
    max_queue: int | None = Field(default=None, ge=1, description="as scheduler.max_queue")


class SchedulerSettings(Section):
    """How waiting requests are ordered, which are turned away, and who makes room for whom."""

    policy: str = Field(
        default="fair",
        description="fcfs, priority, fair, sjf, round_robin, deadline, or module:Class of your own",
    )
    aging_seconds: float = Field(
        default=30, gt=0, allow_inf_nan=False, description="waiting so long lifts a request by one band"
    )
    input_weight: float = Field(default=1, ge=0, description="service of one prompt token")
    output_weight: float = Field(default=2, gt=0, description="service of one generated token")
    locality: LocalitySettings = LocalitySettings()
    preemption: PreemptionSettings = PreemptionSettings()
    deadline_ms: dict[BandName, int] = Field(
        default={}, description="by band: the deadline of requests that give none"
    )
    max_queue: int | None = Field(
        default=None, ge=1, description="most waiting requests of a tenant in a band, in one engine core"
    )
    tenants: dict[str, TenantSettings] = Field(
        default={}, description="by name; `default` is that of requests without a tenant, and of others"
    )
    trust_tenant_header: bool = Field(
        default=False, description="take the tenant from X-Vlinders-Tenant: only behind a proxy that sets it"
    )
    body_priority: Literal["vlinders", "vllm"] = Field(
        default="vlinders",
        description="the scale of `priority` in a request body and in LLM.generate: 0..1000 with "
        "larger first, or vLLM's own with lower first",
    )

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        if value in POLICY_NAMES or _OWN_POLICY.match(value):
            return value
        message = f"allowed are {', '.join(POLICY_NAMES)}, or module:Class of your own"
        raise ValueError(message)

    @field_validator("deadline_ms")
    @classmethod
    def _positive(cls, value: dict[BandName, int]) -> dict[BandName, int]:
        if any(limit < 1 for limit in value.values()):
            message = "a deadline is at least 1 ms"
            raise ValueError(message)
        return value

    def tenant(self, name: str) -> TenantSettings:
        """Return the settings of a tenant; of ``default`` for one that is not named."""
        return self.tenants.get(name) or self.tenants.get("default") or _ANY_TENANT

    def max_queue_of(self, tenant: str) -> int | None:
        """Return how many requests of `tenant` may wait in a band; None: any number."""
        return self.tenant(tenant).max_queue or self.max_queue


_ANY_TENANT = TenantSettings()
