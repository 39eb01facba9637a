"""Secrets by reference: a setting names where a secret is, and never holds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from vllm_vlinders.errors import SettingsError

HIDDEN = "hidden_input"
"""Type of a validation error whose input must not be repeated: it may be the secret itself."""
_FORMS = ("env:", "file:")


def _is_reference(value: str) -> str:
    if value.startswith(_FORMS) and value.partition(":")[2]:
        return value
    raise PydanticCustomError(HIDDEN, "give a reference, env:NAME or file:/path, not the secret itself")


def _has_no_password(value: str) -> str:
    address = value.partition("://")[2].partition("/")[0]
    if ":" in address.rpartition("@")[0] or "password=" in value:
        raise PydanticCustomError(
            HIDDEN,
            "this URL carries a password; put the whole URL in a variable or a file and write env:NAME or "
            "file:/path here",
        )
    return value


SecretReference = Annotated[str, AfterValidator(_is_reference)]
"""``env:NAME`` or ``file:/path``."""
UrlOrReference = Annotated[str, AfterValidator(_has_no_password)]
"""A URL without a password, or a `SecretReference` to one with it."""


def reveal(reference: str, key: str) -> str:
    """Return the secret that `reference` names; anything else than a reference is returned as it is.

    Args:
        reference: the value of a setting.
        key: the dotted key of that setting, for the message.

    Raises:
        SettingsError: the variable or the file does not exist, or is empty.
    """
    if not reference.startswith(_FORMS):
        return reference
    form, _, name = reference.partition(":")
    try:
        text = os.environ.get(name, "") if form == "env" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{key}: {reference} cannot be read: {type(error).__name__}"
        raise SettingsError(message) from None
    if not text.strip():
        message = f"{key}: {reference} is empty or not set; put the secret there"
        raise SettingsError(message)
    return text.strip()
