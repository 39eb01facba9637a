"""The section ``tracing``. Where traces go, vLLM's own ``--otlp-traces-endpoint`` says."""

from __future__ import annotations

from pydantic import Field

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.secret import UrlOrReference


class TracingSettings(Section):
    """Reports of errors."""

    sentry_dsn: UrlOrReference | None = Field(
        default=None, description="the DSN of a Sentry project, or a reference to it; unset: no reports"
    )
