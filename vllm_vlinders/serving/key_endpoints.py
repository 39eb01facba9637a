"""``/vlinders/keys``: what the command ``vlinders keys`` does, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm_vlinders.auth.key_office import DEFAULT_OVERLAP, KeyOffice, NewKey
from vllm_vlinders.auth.moments import describe, parse_duration, parse_moment
from vllm_vlinders.errors import KeyRequestError, RequestError
from vllm_vlinders.serving.access import active_access
from vllm_vlinders.serving.exchange import current_exchange

_CREATED = 201
_CREATE_FIELDS = {"tenant", "role", "principal", "label", "not_before", "expires"}


async def create(_request: Request) -> Response:
    """Make a key; the answer is the only one that holds it."""
    body = _body(_CREATE_FIELDS)
    now = time.time()
    if "tenant" not in body or "role" not in body:
        raise KeyRequestError("tenant and role are needed", "tenant" if "tenant" not in body else "role")
    moments = {name: parse_moment(body.get(name), name, now) for name in ("not_before", "expires")}
    fields = {name: value for name, value in body.items() if name not in moments and value is not None}
    new = await _ask(lambda office: office.create(**fields, **moments))
    return _shown_once(new)


async def list_keys(request: Request) -> Response:
    """List the keys, of all tenants or of one."""
    tenant = request.query_params.get("tenant")
    records = await _ask(lambda office: office.list(tenant))
    now = time.time()
    return JSONResponse({"keys": [describe(record, now) for record in records]})


async def show(request: Request) -> Response:
    """Show one key."""
    record = await _ask(lambda office: office.get(request.path_params["key"]))
    return JSONResponse(describe(record, time.time()))


async def revoke(request: Request) -> Response:
    """Revoke a key."""
    record = await _ask(lambda office: office.revoke(request.path_params["key"]))
    return JSONResponse(describe(record, time.time()))


async def rotate(request: Request) -> Response:
    """Make a key that replaces another one."""
    body = _body({"overlap"})
    overlap = parse_duration(body["overlap"], "overlap") if "overlap" in body else DEFAULT_OVERLAP
    new = await _ask(lambda office: office.rotate(request.path_params["key"], overlap))
    return _shown_once(new)


ROUTES = (
    ("/vlinders/keys", create, "POST"),
    ("/vlinders/keys", list_keys, "GET"),
    ("/vlinders/keys/{key}", show, "GET"),
    ("/vlinders/keys/{key}/revoke", revoke, "POST"),
    ("/vlinders/keys/{key}", revoke, "DELETE"),
    ("/vlinders/keys/{key}/rotate", rotate, "POST"),
)


def _body(known: set[str]) -> dict[str, Any]:
    """Return the JSON object of the request, which the pipeline has read; empty if there is none.

    Raises:
        KeyRequestError: it has a field that is not `known`.
    """
    exchange = current_exchange.get()
    body = (exchange.payload if exchange is not None else None) or {}
    unknown = sorted(set(body) - known)
    if unknown:
        message = f"{unknown[0][:80]!r} is not known; allowed are {', '.join(sorted(known))}"
        raise KeyRequestError(message, unknown[0][:80])
    return body


async def _ask(question: Callable[[KeyOffice], Any]) -> Any:
    """Put a question to the office in the caller's name; its answer counts in this process at once."""
    access, exchange = active_access(), current_exchange.get()
    if access is None or access.directory is None or exchange is None or exchange.grant is None:
        message = "this server has no store of keys: set auth.keys in its settings"
        raise RequestError(message, status=404, code="no_key_store")
    office = access.office(exchange.grant.principal.name)
    answer = await run_in_threadpool(question, office)
    await run_in_threadpool(access.directory.refresh)
    return answer


def _shown_once(new: NewKey) -> Response:
    body = {"key": new.key, **describe(new.record, time.time())}
    return JSONResponse(body, _CREATED, headers={"Cache-Control": "no-store"})
