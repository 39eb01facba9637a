"""The section ``sessions``."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from vllm_vlinders.settings.base import Section

_KEY = re.compile(r"^(header:[A-Za-z0-9_-]{1,64}|body:[A-Za-z_][A-Za-z0-9_]{0,63})$")


class SessionSettings(Section):
    """Which requests belong together, and what is kept for the next of them."""

    enabled: bool = Field(default=True, description="whether sessions keep their rank and their KV blocks")
    keys: tuple[str, ...] = Field(
        default=("header:X-Session-Id", "body:session_id"),
        description="where a request names its session, header:NAME or body:FIELD; the first found counts",
    )
    derive_from_prefix: bool = Field(
        default=False,
        description="without a name, take system prompt and first user message as the session",
    )
    ttl_seconds: float = Field(
        default=300, gt=0, allow_inf_nan=False, description="how long after its last request it is kept"
    )
    max_fraction: float = Field(
        default=0.5, gt=0, le=1, description="the most KV blocks kept, of all of an engine core"
    )
    tenant_fraction: float = Field(
        default=1, gt=0, le=1, description="the most KV blocks kept for one tenant, of those"
    )
    max_skew: float = Field(
        default=1.25,
        ge=1,
        allow_inf_nan=False,
        description="with data parallelism: the load, in means of all ranks, up to which a rank takes its sessions",
    )

    @field_validator("keys")
    @classmethod
    def _known_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            if not _KEY.match(key):
                message = f"{key!r} is neither header:NAME nor body:FIELD"
                raise ValueError(message)
        if "body:previous_response_id" in value:
            message = "body:previous_response_id names one answer, another one at each turn: no session"
            raise ValueError(message)
        return value
