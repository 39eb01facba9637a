"""Errors of the API server, reported to Sentry: where they happened, never what was asked or by whom."""

from __future__ import annotations

import logging
import re
from typing import Any

from vllm_vlinders import __version__
from vllm_vlinders.errors import SettingsError
from vllm_vlinders.logs import fields_of_request
from vllm_vlinders.settings import TracingSettings, reveal

_KEPT = (
    "event_id", "timestamp", "level", "platform", "logger", "release", "environment", "sdk", "exception",
    "tags", "modules", "type",
)  # fmt: skip
_REPR = re.compile(r"[(<\n]")
"""Where in messages of asyncio the reprs of arguments, callbacks and tasks begin."""


def start(settings: TracingSettings) -> None:
    """Report what is logged as an error by vLLM, uvicorn and asyncio, if a DSN is set.

    Raises:
        SettingsError: sentry-sdk is not installed, or the DSN is none.
    """
    if settings.sentry_dsn is None:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.logging import LoggingIntegration
    except ImportError:
        message = "tracing.sentry_dsn: sentry-sdk is not installed: pip install 'vllm-vlinders[sentry]'"
        raise SettingsError(message) from None
    try:
        sentry_sdk.init(
            dsn=reveal(settings.sentry_dsn, "tracing.sentry_dsn"),
            release=f"vllm-vlinders@{__version__}",
            default_integrations=False,
            integrations=[LoggingIntegration(level=None)],
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            auto_session_tracking=False,
            before_send=scrub,
        )
    except sentry_sdk.utils.BadDsn:
        raise SettingsError("tracing.sentry_dsn: not a DSN of Sentry") from None


def scrub(event: Any, hint: Any) -> Any:
    """Return what may be sent: kinds and places of errors, the fixed part of messages, the request's id.

    Texts of exceptions, arguments of messages, and messages that were put together before they were logged can
    hold prompts or credentials.
    """
    kept = {name: event[name] for name in _KEPT if name in event}
    if "log_record" in hint:
        kept["logentry"] = {"message": _fixed_part(hint["log_record"])}
    for exception in kept.get("exception", {}).get("values", ()):
        exception["value"] = ""
        for frame in exception.get("stacktrace", {}).get("frames", ()):
            frame.pop("vars", None)
    request_id = fields_of_request().get("request_id")
    if request_id is not None:
        kept["tags"] = {"request_id": request_id}
    return kept


def _fixed_part(record: logging.LogRecord) -> str:
    """Return what of a message is the same whatever it is about; where that is not known, its place."""
    if record.args:
        return str(record.msg)
    if record.name == "asyncio":
        return _REPR.split(str(record.msg), maxsplit=1)[0].rstrip()
    return f"{record.name} {record.pathname}:{record.lineno}"
