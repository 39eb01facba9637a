"""The lines of a request: its fields on all of them, those of vLLM and uvicorn too, and one when it ends."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextvars import ContextVar
from typing import Any

from vllm_vlinders.auth.keys import redact
from vllm_vlinders.logs import fields_of_request, follow_level, request_fields, sink_of
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.measure import is_work, model_of
from vllm_vlinders.settings import LoggingSettings, active_settings
from vllm_vlinders.sinks import FileSink, StderrSink

logged_exchange: ContextVar[Exchange | None] = ContextVar("vlinders_logged_exchange", default=None)
"""The exchange that lines are about, from its first stage to its last line."""

_LOGGERS = ("vllm", "uvicorn", "uvicorn.access", "uvicorn.error")
_SESSION = "x-session-id"
_LONGEST_PATH = 200
_installed = False


def install() -> None:
    """Let the loggers of vLLM and uvicorn write the fields of requests; once they are set up."""
    global _installed  # noqa: PLW0603 -- one per process, by nature
    if _installed:
        return
    _installed = True
    settings = active_settings().logging
    request_fields.append(_fields)
    follow_level()
    errors = _Errors(settings) if settings.errors is not None else None
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if settings.format == "json" and logger.handlers:
            logger.handlers = [_Json(logger.handlers[0].level)]
        for handler in logger.handlers:
            if settings.format != "json":
                handler.setFormatter(_WithFields(handler.formatter or logging.Formatter()))
        if errors is not None and (not logger.propagate or logger.parent is logging.root):
            logger.addHandler(errors)


def check(settings: LoggingSettings) -> None:
    """Open the files that lines of requests go to.

    Raises:
        SettingsError: one cannot be written.
    """
    for path in (settings.requests, settings.errors):
        sink_of(path, settings)


def write_request_line(exchange: Exchange) -> None:
    """Write the line of a request that has ended, where ``logging.requests`` asks for it."""
    settings = active_settings().logging
    if settings.requests is None or not is_work(exchange):
        return
    meter = exchange.meter
    line = {
        "event": "request",
        "timestamp": _moment(time.time()),
        **_fields_of(exchange),
        "method": exchange.method,
        "path": redact(exchange.path)[:_LONGEST_PATH],
        "status": exchange.outcome,
        "seconds": round((exchange.answered or time.perf_counter()) - exchange.begun, 6),
        "prompt_tokens": meter.prompt,
        "cached_tokens": meter.cached,
        "completion_tokens": meter.output,
    }
    sink_of(settings.requests, settings).write(json.dumps(line))


def _fields() -> dict[str, Any]:
    exchange = logged_exchange.get()
    # A background task that a request has started, such as vLLM's output handler, outlives it.
    return {} if exchange is None or exchange.finished else _fields_of(exchange)


def _fields_of(exchange: Exchange) -> dict[str, Any]:
    context = exchange.context
    session = context.session or next(iter(exchange.header(_SESSION)), None)
    found = {
        "request_id": context.request_id,
        "tenant": context.tenant,
        "session": None if session is None else _hidden(session),
        "model": model_of(exchange),
    }
    return {name: value for name, value in found.items() if value is not None}


def _hidden(session: str) -> str:
    """Return what stands for a session in the lines of this server: the same for the same, and no more."""
    key = os.environ.get("VLINDERS_RUN_DIR", "").encode()[-64:]
    return hashlib.blake2b(session.encode("utf-8", "surrogateescape"), key=key, digest_size=6).hexdigest()


class _WithFields(logging.Formatter):
    """Adds the fields of the request to what another formatter makes of a line."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        fields = " ".join(f"{name}={value}" for name, value in fields_of_request().items())
        return f"{text} [{fields}]" if fields else text


class _Json(logging.Handler):
    """Writes lines as JSON, whole, to standard error."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._sink = StderrSink()

    def emit(self, record: logging.LogRecord) -> None:
        _write(self, self._sink, record)


class _Errors(logging.Handler):
    """Writes errors as JSON to the file of ``logging.errors``."""

    def __init__(self, settings: LoggingSettings) -> None:
        super().__init__(logging.ERROR)
        self._sink = sink_of(settings.errors, settings)

    def emit(self, record: logging.LogRecord) -> None:
        _write(self, self._sink, record)


def _write(handler: logging.Handler, sink: FileSink | StderrSink, record: logging.LogRecord) -> None:
    """Write a line; whoever logs what cannot be written goes on, as with the handlers of `logging`."""
    try:
        sink.write(_as_json(record))
    except Exception:  # noqa: BLE001 -- arguments that do not fit the message raise what they like
        handler.handleError(record)


def _as_json(record: logging.LogRecord) -> str:
    line = {
        **fields_of_request(),
        "event": record.getMessage(),
        "level": record.levelname.lower(),
        "logger": record.name,
        "timestamp": _moment(record.created),
        "pid": record.process,
    }
    if record.exc_info:
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(line)


def _moment(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"
