"""The encoder that the settings name, for the utterances of routes."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.routing.classifier import default_classifier
from vllm_vlinders.routing.encoders import Encoder, create_encoder
from vllm_vlinders.routing.encoders.cached import CachedEncoder
from vllm_vlinders.settings import EncoderSettings, reveal


def open_encoder(settings: EncoderSettings) -> Encoder:
    """Return the encoder, which remembers what it has been asked; `static` is shared with the classifier.

    Raises:
        SettingsError: a secret or the model is not there.
    """
    if settings.name == "static":
        return default_classifier().encoder
    options: dict[str, Any] = {}
    if settings.model is not None:
        options["model"] = settings.model
    if settings.url is not None:
        options["url"] = reveal(settings.url, "routing.encoder.url")
    if settings.key is not None:
        options["api_key"] = reveal(settings.key, "routing.encoder.key")
    try:
        return CachedEncoder(create_encoder(settings.name, **options))
    except (OSError, ValueError, ImportError) as error:
        message = f"routing.encoder: {settings.name} cannot be loaded: {type(error).__name__}: {error}"
        raise SettingsError(message) from None
