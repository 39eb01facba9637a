"""Encoders by name."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.routing.encoders.base import Encoder


def create_encoder(name: str, **options: Any) -> Encoder:
    """Return the encoder of that name.

    Args:
        name: ``static`` (no options needed), ``minilm`` or ``openai``.
        options: the arguments of its class.

    Raises:
        ValueError: there is no encoder of that name.
    """
    if name == "static":
        from vllm_vlinders.routing.encoders.static import StaticEncoder

        return StaticEncoder(**options)
    if name == "minilm":
        from vllm_vlinders.routing.encoders.minilm import MiniLmEncoder

        return MiniLmEncoder(**options)
    if name == "openai":
        from vllm_vlinders.routing.encoders.openai import OpenAiEncoder

        return OpenAiEncoder(**options)
    message = f"no encoder is named {name!r}; there are static, minilm and openai"
    raise ValueError(message)
