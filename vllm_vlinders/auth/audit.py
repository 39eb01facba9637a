"""The audit log: one JSON line for each request, denied attempt and change of a key.

Never a prompt, never a credential. Lines go out whole, by one write each, so that several processes
can share a file; the file may be moved away at any time, and is then made anew.
"""

from __future__ import annotations

from typing import Any

import structlog

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings import AuditSettings
from vllm_vlinders.sinks import FileSink, StderrSink


class _Lines:
    """What structlog calls a logger: it writes lines to a sink."""

    def __init__(self, sink: FileSink | StderrSink) -> None:
        self.msg = self.info = sink.write


class Audit:
    """Writes the log; nothing where it is switched off.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, settings: AuditSettings) -> None:
        self._log: Any = None
        if not settings.enabled:
            return
        try:
            sink = _sink(settings)
        except OSError as error:
            message = f"auth.audit.path: {settings.path} cannot be written: {error.strerror}"
            raise SettingsError(message) from None
        self._log = structlog.wrap_logger(
            _Lines(sink),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        ).bind(log="audit")

    def write(self, event: str, **fields: Any) -> None:
        """Write one line; fields that are None are left out."""
        if self._log is not None:
            self._log.info(event, **{name: value for name, value in fields.items() if value is not None})


def _sink(settings: AuditSettings) -> FileSink | StderrSink:
    if settings.path is None:
        return StderrSink()
    if settings.rotation is None:
        return FileSink(settings.path)
    return FileSink(settings.path, settings.rotation.max_bytes, settings.rotation.kept)
