"""The section ``logging``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from vllm_vlinders.settings.base import Section

LogLevel = Literal["debug", "info", "warning", "error"]


class RotationSettings(Section):
    """When log files are put aside. Several processes may write one file."""

    max_bytes: int = Field(
        default=100 * 2**20, ge=4096, description="a file that has grown so large is renamed"
    )
    kept: int = Field(default=5, ge=1, le=1000, description="how many renamed files to keep")


class LoggingSettings(Section):
    """What is logged of vllm-vlinders and of requests, how, and where to."""

    level: LogLevel = "info"
    format: Literal["console", "json"] = Field(
        default="console", description="of our lines; `json` makes vLLM's lines in API servers JSON too"
    )
    application: Path | None = Field(default=None, description="a file for our lines; unset: standard error")
    requests: Path | None = Field(
        default=None, description="a file for one line about each request; unset: none"
    )
    errors: Path | None = Field(
        default=None, description="a file for errors, ours and vLLM's, beside the above"
    )
    rotation: RotationSettings = RotationSettings()
