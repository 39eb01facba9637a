"""The section ``routing``: which model answers a request that names none."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.encoder import EncoderSettings
from vllm_vlinders.settings.upstream import UpstreamSettings

Level = Literal["low", "medium", "high"]
Speed = Literal["slow", "medium", "fast"]


class TokenCost(Section):
    """What a thousand tokens cost."""

    input: float = Field(default=0, ge=0)
    output: float = Field(default=0, ge=0)


def _both_ways(cost: Any) -> Any:
    if isinstance(cost, int | float) and not isinstance(cost, bool):
        return {"input": cost, "output": cost}
    return cost


Cost = Annotated[TokenCost, BeforeValidator(_both_ways, json_schema_input_type=float | TokenCost)]
"""A number, the same for prompt and answer, or ``{input: …, output: …}``."""


class ModelSettings(Section):
    """A model that may answer: one that this server serves under that name, or an upstream's."""

    capabilities: tuple[str, ...] = Field(
        default=(), description="what it is good at, in words that routes use"
    )
    cost: Cost = Field(default=TokenCost(), description="of a thousand tokens: a number, or input and output")
    speed: Speed = "medium"
    quality: float | None = Field(
        default=None, ge=0, le=1, description="how strong it is; unset: the dearer, the stronger"
    )
    fallback: tuple[str, ...] = Field(default=(), description="models that answer while it cannot, in order")
    upstream: UpstreamSettings | None = None


class RequirementSettings(Section):
    """What is asked of a model."""

    quality: Level | None = Field(default=None, description="high: never less than a strong model")
    cost: Level | None = Field(default=None, description="low: as cheap as can be; high: whatever it costs")
    speed: Speed | None = None

    def over(self, other: RequirementSettings) -> RequirementSettings:
        """Return these requirements, with those of `other` where this one has none."""
        both = self.quality or other.quality, self.cost or other.cost, self.speed or other.speed
        for alone in (other, self):
            if both == (alone.quality, alone.cost, alone.speed):
                return alone
        return RequirementSettings(quality=both[0], cost=both[1], speed=both[2])


class RouteSettings(Section):
    """A kind of request, and who answers it."""

    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    description: str = Field(default="", description="what such requests ask for, in a sentence")
    utterances: tuple[str, ...] = Field(default=(), description="such requests, in the words of users")
    threshold: float = Field(default=0.6, ge=-1, le=1, description="how like one of those a prompt must be")
    when: dict[str, Any] | None = Field(default=None, description="a condition on signals")
    priority: int = Field(default=0, description="routes with a higher one are asked first")
    models: tuple[str, ...] = Field(default=(), description="who may answer; unset: all")
    wants: tuple[str, ...] = Field(default=(), description="capabilities that count")
    requirements: RequirementSettings = RequirementSettings()
    parameters: dict[str, Any] = Field(default={}, description="body fields, where the request has none")
    chat_template_kwargs: dict[str, Any] = Field(default={}, description="the same, key by key")
    system: str | None = Field(default=None, description="the system prompt of a request without one")
    request_priority: int | None = Field(
        default=None, ge=0, le=1000, description="of a request that gives none"
    )

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if not (self.utterances or self.description or self.when):
            message = "a route needs utterances, a description or a condition `when`"
            raise ValueError(message)
        return self


class PolicySettings(Section):
    """How a model is chosen."""

    routes: tuple[RouteSettings, ...] = ()
    default_routes: bool = Field(
        default=True, description="whether the routes that come with it are asked, too"
    )
    requirements: RequirementSettings = RequirementSettings()
    session_margin: float = Field(
        default=0.15, ge=0, description="by how much another model must be better to take over a session"
    )


class SecondPolicySettings(PolicySettings):
    """A second policy, to be compared with the first."""

    share: float = Field(default=0, ge=0, le=1, description="of the requests that it decides")


class RoutingSettings(PolicySettings):
    """Where this section is given, requests for one of `auto_names` are routed."""

    auto_names: tuple[str, ...] = Field(default=("auto",), min_length=1)
    models: dict[str, ModelSettings] = Field(default={}, description="who may answer")
    default: str | None = Field(default=None, description="who answers otherwise; unset: the served model")
    tenants: dict[str, RequirementSettings] = Field(
        default={}, description="requirements of tenants; `default` is that of each one that is not named"
    )
    shadow: bool = Field(default=False, description="decide and count, but let the default model answer")
    second: SecondPolicySettings | None = None
    encoder: EncoderSettings = EncoderSettings()
    unreachable: Literal["warn", "refuse"] = Field(
        default="warn", description="what to do at the start about upstreams that do not answer"
    )

    @field_validator("auto_names")
    @classmethod
    def _plain(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not (name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
                message = f"{name!r}: use letters, digits, '-', '_' and '.'"
                raise ValueError(message)
        return value
