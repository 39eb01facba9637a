"""What turns texts into vectors, to compare prompts with the utterances of routes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.secret import SecretReference, UrlOrReference


class EncoderSettings(Section):
    """An encoder."""

    name: Literal["static", "minilm", "openai"] = Field(
        default="static",
        description="static: in the package, microseconds; minilm: by transformers on the CPU, milliseconds; "
        "openai: any server with /v1/embeddings",
    )
    model: str | None = Field(
        default=None, description="of minilm a folder or a name; of openai the model to ask"
    )
    url: UrlOrReference | None = Field(default=None, description="of openai, up to and with /v1")
    key: SecretReference | None = Field(default=None, description="of openai: the key that is shown to it")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.name == "openai" and not (self.url and self.model):
            message = "openai needs url and model"
            raise ValueError(message)
        if self.name != "openai" and (self.url or self.key):
            message = f"{self.name} takes neither url nor key"
            raise ValueError(message)
        return self
