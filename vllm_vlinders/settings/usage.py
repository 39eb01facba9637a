"""The section ``usage``: the ledger of what tenants used."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, field_validator

from vllm_vlinders.settings.base import Section
from vllm_vlinders.settings.secret import UrlOrReference, reveal


class UsageSettings(Section):
    """Where usage is kept by day, tenant and model, and what the GPUs cost."""

    enabled: bool = True
    store: UrlOrReference | None = Field(
        default=None,
        description="sqlite:////absolute/path, postgresql+psycopg://user@host/database, or a reference to "
        "such a URL; unset: an SQLite file in the user's state directory",
    )
    gpu_hour: float | None = Field(default=None, ge=0, description="what one GPU costs in an hour")
    gpus: int = Field(default=1, ge=1, description="how many GPUs the servers of this ledger have")

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is None or value.startswith(("sqlite:///", "postgresql", "env:", "file:")):
            return value
        message = "allowed are sqlite:///…, postgresql+psycopg://…, env:NAME and file:/path"
        raise ValueError(message)

    def url(self) -> str:
        """Return the URL of the ledger's database.

        Raises:
            SettingsError: it is a secret that cannot be read.
        """
        if self.store is None:
            return f"sqlite:///{state_folder() / 'usage.db'}"
        return reveal(self.store, "usage.store")


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where what outlives a server is kept, by the XDG Base Directory Specification."""
    chosen = environ.get("XDG_STATE_HOME")
    if chosen:
        return Path(chosen) / "vllm-vlinders"
    try:
        return Path.home() / ".local" / "state" / "vllm-vlinders"
    except RuntimeError:  # a user id without a home, as containers may have
        return Path(tempfile.gettempdir()) / "vllm-vlinders"
