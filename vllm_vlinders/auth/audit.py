"""The audit log: one JSON line for each request, denied attempt and change of a key.

Never a prompt, never a credential. Lines go out whole, by one write each, so that several processes
can share a file; the file may be moved away at any time, and is then made anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import structlog

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.settings import AuditSettings

_STDERR = 2
_LOOK_SECONDS = 1.0


class _Sink:
    """Where lines go: a file that is opened anew when another stands in its place, or standard error."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor = _STDERR
        self._looked = 0.0
        if path is not None:
            self._descriptor = self._open()

    def msg(self, line: str) -> None:
        """Write one line."""
        if self._path is not None and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._follow()
        with contextlib.suppress(OSError):
            os.write(self._descriptor, (line + "\n").encode("utf-8", "backslashreplace"))

    info = msg

    def _open(self) -> int:
        self._looked = time.monotonic()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(str(self._path), flags, 0o600)

    def _follow(self) -> None:
        self._looked = time.monotonic()
        with contextlib.suppress(FileNotFoundError):
            if self._path is None or os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                return
        with contextlib.suppress(OSError):
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh


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
            sink = _Sink(settings.path)
        except OSError as error:
            message = f"auth.audit.path: {settings.path} cannot be written: {error.strerror}"
            raise SettingsError(message) from None
        self._log = structlog.wrap_logger(
            sink,
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
