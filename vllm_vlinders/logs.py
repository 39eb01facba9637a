"""The project's own log lines: structlog, one write per line, to standard error or a file.

Lines about a request carry its fields, whoever writes them: `request_fields` says which. The level can
be changed while the server runs: it is kept in a file that all processes of the server look at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import structlog

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings import LoggingSettings, LogLevel, active_settings
from vllm_vlinders.sinks import FileSink, StderrSink

_LOOK_SECONDS = 1.0
_LEVELS = structlog.processors.NAME_TO_LEVEL
LEVELS: tuple[str, ...] = get_args(LogLevel)

request_fields: list[Callable[[], Mapping[str, Any]]] = []
"""What the lines of this moment carry: set by the API server."""


def fields_of_request() -> dict[str, Any]:
    """Return the fields of the request that is being handled; none outside of one."""
    return {name: value for source in request_fields for name, value in source().items()}


@cache
def sink_of(path: Path | None, settings: LoggingSettings) -> FileSink | StderrSink:
    """Return the sink that writes to `path`, standard error if it is None; one for each process.

    Raises:
        SettingsError: it cannot be written.
    """
    if path is None:
        return StderrSink()
    try:
        return FileSink(path, settings.rotation.max_bytes, settings.rotation.kept)
    except OSError as error:
        message = f"logging: {path} cannot be written: {error.strerror}"
        raise SettingsError(message) from None


class _Lines:
    """What structlog calls a logger: it writes lines where `settings` say."""

    def __init__(self, settings: LoggingSettings) -> None:
        self._settings = settings

    def msg(self, line: str) -> None:
        sink_of(self._settings.application, self._settings).write(line)

    debug = info = warning = msg

    def error(self, line: str) -> None:
        self.msg(line)
        if self._settings.errors is not None:
            sink_of(self._settings.errors, self._settings).write(line)

    critical = error


def make_logger(settings: LoggingSettings) -> Any:
    """Return a bound structlog logger for these settings, without touching the global set-up."""
    colors = settings.application is None and settings.errors is None and sys.stderr.isatty()
    renderers: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.format == "json"
        else [structlog.dev.ConsoleRenderer(colors=colors)]
    )
    threshold = the_level()
    return structlog.wrap_logger(
        _Lines(settings),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            threshold.drop_below,
            _add_request,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    ).bind(logger="vlinders")


def _add_request(_logger: Any, _method: str, event: Any) -> Any:
    return {**fields_of_request(), **event}


class Level:
    """The level of this process's lines: that of the settings until another one is set.

    Args:
        level: of the settings.
        path: the file in which the processes of the server find another one; None: there is none.
    """

    def __init__(self, level: str, path: Path | None) -> None:
        self.name = level
        self.changed: list[Callable[[str], None]] = []
        self._path = path
        self._looked = 0.0
        self._stamp: tuple[int, int] | None = None

    def follow(self) -> None:
        """Take over what has been set by any process; at most once a second, so call it often."""
        now = time.monotonic()
        if self._path is None or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        with contextlib.suppress(OSError):
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_ino
            if stamp != self._stamp:
                self._stamp = stamp
                self._take(self._path.read_text(encoding="utf-8").strip())

    def set(self, level: str) -> None:
        """Set the level of all processes of this server.

        Raises:
            SettingsError: there is no such level, or no place to tell the others.
        """
        if level not in LEVELS:
            message = f"logging.level: {level[:20]!r} is not allowed; give one of {', '.join(LEVELS)}"
            raise SettingsError(message)
        if self._path is None:
            raise SettingsError("logging.level: there is no run directory to tell the other processes by")
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(level, encoding="utf-8")
        draft.replace(self._path)
        self._looked = 0.0
        self.follow()

    def drop_below(self, _logger: Any, _method: str, event: Any) -> Any:
        """Drop a line of a lower level, as structlog's processors do."""
        self.follow()
        if _LEVELS[event["level"]] < _LEVELS[self.name]:
            raise structlog.DropEvent
        return event

    def _take(self, level: str) -> None:
        if level in LEVELS and level != self.name:
            self.name = level
            for hear in self.changed:
                hear(level)


def follow_level() -> None:
    """Let vLLM's logger of this process follow the level once it is set at run time; until then it is vLLM's."""
    the_level().changed.append(_set_vllms_level)


def _set_vllms_level(level: str) -> None:
    """Set the level of vLLM's logger, and let its handlers write what passes; not those for errors alone."""
    logger = logging.getLogger("vllm")
    logger.setLevel(level.upper())
    for handler in logger.handlers:
        if handler.level < logging.ERROR:
            handler.setLevel(logging.NOTSET)


@cache
def the_level() -> Level:
    """Return the level of this process."""
    folder = os.environ.get("VLINDERS_RUN_DIR")
    return Level(active_settings().logging.level, Path(folder) / "logging-level" if folder else None)
