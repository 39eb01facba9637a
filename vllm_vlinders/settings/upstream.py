"""A server elsewhere that speaks the OpenAI API."""

from __future__ import annotations

from pydantic import Field, field_validator

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.secret import SecretReference, UrlOrReference


class UpstreamSettings(Section):
    """Where a model is answered, by one server or by several alike."""

    urls: tuple[UrlOrReference, ...] = Field(
        description="of its replicas, at least one, up to and without /v1: http://gpu-1:8000"
    )
    model: str | None = Field(default=None, description="its name there; unset: the same as here")
    key: SecretReference | None = Field(default=None, description="the key that is shown to it")
    ask_usage: bool = Field(
        default=True, description="whether streams are asked to tell their usage where the client has not"
    )
    forward_priority: bool = Field(
        default=False,
        description="whether it is told the priority, by X-Vlinders-Priority: it must be a vllm-vlinders server",
    )
    connect_seconds: float = Field(default=5, gt=0)
    first_byte_seconds: float = Field(
        default=600,
        gt=0,
        description="until it begins to answer; what is not streamed begins when it is whole",
    )
    idle_seconds: float = Field(default=120, gt=0, description="between two parts of an answer")
    max_connections: int = Field(default=512, ge=1, description="to all of its replicas")
    health_path: str = Field(default="/health", pattern=r"^/")
    health_seconds: float = Field(default=10, gt=0, description="between two looks at its health")
    failures: int = Field(default=3, ge=1, description="in a row, after which a replica is left alone")
    rest_seconds: float = Field(default=10, gt=0, description="for so long, before it is tried again")

    @field_validator("urls")
    @classmethod
    def _http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:  # a bound of the field would repeat what is given, and with it a password
            message = "name at least one address"
            raise ValueError(message)
        for url in value:
            if not url.startswith(("http://", "https://", "env:", "file:")):
                message = f"{url!r} is not an http:// or https:// address, nor env:NAME or file:/path"
                raise ValueError(message)
        if len(set(value)) < len(value):
            message = "a replica is named twice"
            raise ValueError(message)
        return tuple(url.rstrip("/") for url in value)
