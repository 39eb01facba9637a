"""The project's own log lines: structlog, one write per line to standard error.

vLLM prefixes what its processes print; a line written whole to the descriptor stays parseable.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import structlog

from vllm_vlinders.settings import LoggingSettings

_STDERR = 2


class _StderrWriter:
    """A structlog output that survives replaced ``sys.stderr`` objects and forks."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            os.write(_STDERR, (message + "\n").encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = msg


def make_logger(settings: LoggingSettings) -> Any:
    """Return a bound structlog logger for these settings, without touching the global set-up."""
    renderers: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    level = structlog.processors.NAME_TO_LEVEL[settings.level]
    return structlog.wrap_logger(
        _StderrWriter(),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    ).bind(logger="vlinders")
