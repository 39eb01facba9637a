"""The stages that guard: who calls, and may they do this."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote, quote_from_bytes, unquote

from vllm_vlinders.auth.authenticator import credential
from vllm_vlinders.auth.keys import PREFIX, redact
from vllm_vlinders.auth.roles import Grant, read_sizes
from vllm_vlinders.errors import CredentialError, RequestError
from vllm_vlinders.metrics.access import count_request
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.serving.access import Access, active_access
from vllm_vlinders.serving.body import limit_body, read_payload
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.route import is_routed

_WITH_BODY = ("POST", "PUT", "PATCH")
_AUTHORIZATION, _API_KEY = b"authorization", b"x-api-key"
_RANK, _SESSION = b"x-data-parallel-rank", b"x-session-id"
_MOST_WAITING = 256
_LONGEST_PATH = 200
_ASCII = "".join(map(chr, range(128)))
_EXPLAIN = {
    "missing": "this server needs a credential: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
    "ambiguous": "the request shows several credentials; show one",
    "revoked": "this key has been revoked; ask for another one",
    "expired": "this credential has expired; get another one",
    "not_yet_valid": "this credential is not valid yet",
}
_waiting = 0


async def authenticate(exchange: Exchange) -> None:
    """Find out who calls; without a good credential, only open paths and CORS preflights pass."""
    access = active_access()
    if access is None:
        return
    hide_keys(exchange)
    if is_preflight(exchange):
        return
    opened = exchange.path in access.settings.open_paths
    if not opened:
        started = time.perf_counter()
        exchange.on_finish.append(lambda: _record(access, exchange, started))
    given = _read_headers(exchange, access)
    if opened:
        limit_body(exchange, access.settings.max_body_bytes)
        return
    try:
        shown = credential(given[_AUTHORIZATION], given[_API_KEY])
        principal = await access.authenticator.authenticate(shown)
    except CredentialError as error:
        if error.reason != "missing":  # who shows nothing tries out nothing
            await _slow_down(access, exchange)
        raise _unauthorized(error) from None
    role = access.settings.role(principal.role)
    if role is None:
        message = f"the role {principal.role!r} of this credential does not exist on this server"
        raise RequestError(message, status=403, kind="permission_error", code="unknown_role")
    exchange.grant = Grant(principal, role)
    if exchange.method == "WEBSOCKET":  # it may stay open for longer than the credential counts
        exchange.at_door.append(lambda _request_id: _check_still(access, shown))
    exchange.context = RequestContext(
        request_id=exchange.context.request_id,
        principal=principal.name,
        tenant=principal.tenant,
        role=principal.role,
        default_priority=role.priority.default,
        highest_priority=role.priority.cap,
    )


def _check_still(access: Access, shown: str) -> None:
    """Check that the credential `shown` still counts.

    Raises:
        RequestError: it has been revoked or has expired (401).
    """
    try:
        access.authenticator.verify(shown)
    except CredentialError as error:
        raise _unauthorized(error) from None


async def authorize(exchange: Exchange) -> None:
    """Hold the request against what the role of the caller allows."""
    access, grant = active_access(), exchange.grant
    if access is None or grant is None:
        return
    grant.check_path(exchange.path)
    for name, may in ((_RANK, grant.role.rank), (_SESSION, grant.role.session)):
        if not may:
            exchange.scope["headers"] = [h for h in exchange.scope["headers"] if h[0] != name]
    if exchange.method in _WITH_BODY:
        await read_payload(exchange, access.settings.max_body_bytes)
    if exchange.payload is not None:
        model = exchange.payload.get("model")
        if isinstance(model, str) and not is_routed(exchange):  # a model that is chosen is one they may use
            grant.check_model(model)
        exchange.payload.update(read_sizes(exchange.payload))
        grant.check_sizes(exchange.payload)
    # Which model runs and how long its prompt is, vLLM finds out later: see `rights` and `door`.
    exchange.may_be_refused = True


def hide_keys(exchange: Exchange) -> None:
    """Take out of the address the secrets of keys that a client has put there: access logs print it.

    What is not ASCII in a query is percent-encoded, as it should have come: uvicorn and Starlette break on it.
    """
    scope = exchange.scope
    if PREFIX in scope["path"]:
        scope["path"] = redact(scope["path"])
    raw = scope.get("query_string", b"")
    if not raw:
        return
    query = raw.decode("ascii") if raw.isascii() else quote_from_bytes(raw, safe=_ASCII)
    if PREFIX in unquote(query):
        query = "&".join(map(_without_key, query.split("&")))
    scope["query_string"] = query.encode("ascii")


def _without_key(part: str) -> str:
    """Return a part of a query, encoded again where it held a key."""
    clear = unquote(part)
    return quote(redact(clear), safe="=+") if PREFIX in clear else part


def is_preflight(exchange: Exchange) -> bool:
    """Tell whether a browser asks what it may send: vLLM's CORS middleware answers, no route does."""
    return (
        exchange.method == "OPTIONS"
        and bool(exchange.header("origin"))
        and bool(exchange.header("access-control-request-method"))
    )


def _read_headers(exchange: Exchange, access: Access) -> dict[bytes, list[str]]:
    """Return the values of the headers that can hold a credential.

    Raises:
        RequestError: all headers together are larger than allowed (431).
    """
    size = 0
    found: dict[bytes, list[str]] = {_AUTHORIZATION: [], _API_KEY: []}
    for name, value in exchange.scope["headers"]:
        size += len(name) + len(value)
        if name in found:
            found[name].append(value.decode("latin-1"))
    most = access.settings.max_header_bytes
    if size > most:
        message = f"the request headers are larger than {most} bytes (auth.max_header_bytes)"
        raise RequestError(message, status=431, code="headers_too_large")
    return found


async def _slow_down(access: Access, exchange: Exchange) -> None:
    """Let a failure wait that follows others from its address; only so many wait at once."""
    global _waiting  # noqa: PLW0603 -- one per process, by nature
    address = (exchange.scope.get("client") or ("unknown",))[0]
    seconds = access.throttle.fail(address, time.monotonic())
    if seconds and _waiting < _MOST_WAITING:
        _waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            _waiting -= 1


def _unauthorized(error: CredentialError) -> RequestError:
    message = _EXPLAIN.get(error.reason, "the credential is wrong: this server does not know it")
    return RequestError(
        message,
        status=401,
        kind="authentication_error",
        code=error.reason if error.reason in _EXPLAIN else "invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _record(access: Access, exchange: Exchange, started: float) -> None:
    """Write the line of the audit log, and count."""
    refusal, context = exchange.refusal, exchange.context
    outcome = "allowed" if refusal is None else str(refusal.code)
    count_request(outcome)
    client = exchange.scope.get("client") or (None,)
    model = (exchange.payload or {}).get("model")
    meter = exchange.meter
    access.audit.write(
        "request",
        request_id=context.request_id,
        principal=context.principal,
        key=None if exchange.grant is None else exchange.grant.principal.key_id,
        tenant=context.tenant,
        role=context.role,
        address=client[0],
        method=exchange.method,
        endpoint=redact(exchange.path)[:_LONGEST_PATH],
        model=redact(model)[:_LONGEST_PATH] if isinstance(model, str) else None,
        decision="allowed" if refusal is None else "denied",
        reason=None if refusal is None else outcome,
        prompt_tokens=meter.prompt or None,
        output_tokens=meter.output if meter.prompt else None,
        status=exchange.outcome,
        latency_ms=round((time.perf_counter() - started) * 1000, 3),
    )
