"""The stage that finds out which session a request belongs to."""

from __future__ import annotations

from functools import lru_cache

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.body import peek_payload
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.sessions.identity import parse_session, prefix_of
from vllm_vlinders.settings import SessionSettings, active_settings

_PREFIX_FIELDS = (b'"messages"', b'"input"')


async def session(exchange: Exchange) -> None:
    """Take the session's id from the first place that gives one, in the order of ``sessions.keys``."""
    settings = active_settings().sessions
    if not settings.enabled or (exchange.grant is not None and not exchange.grant.role.session):
        return
    for key in settings.keys:
        kind, _, name = key.partition(":")
        found = (
            _from_header(exchange, name) if kind == "header" else await _from_body(exchange, name, settings)
        )
        if found is not None:
            exchange.context = exchange.context._replace(session=found)
            return
    if settings.derive_from_prefix:
        await _read(exchange, settings)
        if exchange.payload is not None:
            exchange.context = exchange.context._replace(session=prefix_of(exchange.payload))


def _from_header(exchange: Exchange, name: str) -> str | None:
    values = exchange.header(name)
    if len(values) > 1:
        message = f"{name}: given {len(values)} times; give it once"
        raise RequestError(message, param=name, code="invalid_session")
    return parse_session(values[0], name) if values and values[0] else None


async def _from_body(exchange: Exchange, name: str, settings: SessionSettings) -> str | None:
    await _read(exchange, settings)
    value = (exchange.payload or {}).get(name)
    if isinstance(value, dict):  # as Responses' `conversation`
        value = value.get("id")
    return (
        parse_session(value, name) if value and isinstance(value, str) else None
    )  # vLLM refuses other types


async def _read(exchange: Exchange, settings: SessionSettings) -> None:
    """Read the body, unless a stage has; it is parsed only if it may name the session."""
    if exchange.payload is None and exchange.grant is None and exchange.method == "POST":
        await peek_payload(exchange, _fields(settings))


@lru_cache(maxsize=8)
def _fields(settings: SessionSettings) -> tuple[bytes, ...]:
    """Return what a body contains that may name the session."""
    named = tuple(f'"{key[5:]}"'.encode() for key in settings.keys if key.startswith("body:"))
    return named + (_PREFIX_FIELDS if settings.derive_from_prefix else ())
