"""The whole tree of settings."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vllm_vlinders.settings.auth import AuthSettings
from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.logging import LoggingSettings
from vllm_vlinders.settings.metrics import MetricsSettings
from vllm_vlinders.settings.quotas import QuotaSettings
from vllm_vlinders.settings.routing import RoutingSettings
from vllm_vlinders.settings.scheduler import SchedulerSettings
from vllm_vlinders.settings.sessions import SessionSettings
from vllm_vlinders.settings.tracing import TracingSettings
from vllm_vlinders.settings.usage import UsageSettings


class PatchSettings(Section):
    """How patches meet a vLLM whose source has changed."""

    on_drift: Literal["refuse", "warn", "skip"] | None = Field(
        default=None,
        description="refuse to start, warn and apply, or skip the patch; unset: refuse for required "
        "patches, skip for optional ones",
    )


class Settings(Section):
    """The whole tree; every field has a default."""

    patches: PatchSettings = PatchSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    sessions: SessionSettings = SessionSettings()
    auth: AuthSettings | None = None
    quotas: QuotaSettings = QuotaSettings()
    metrics: MetricsSettings = MetricsSettings()
    usage: UsageSettings = UsageSettings()
    routing: RoutingSettings | None = None
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _quotas_need_principals(self) -> Self:
        if self.auth is None and (self.quotas.principals or self.quotas.tenants):
            message = "quotas are held by principals and tenants: set auth as well"
            raise ValueError(message)
        return self
