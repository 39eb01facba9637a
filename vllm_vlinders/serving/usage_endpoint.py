"""``GET /vlinders/usage``: what was used, and how full the limits are; callers see their own, admins all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.auth.roles import Grant
from vllm_vlinders.errors import RequestError
from vllm_vlinders.metrics.routing import saved
from vllm_vlinders.serving.access import Access, active_access
from vllm_vlinders.serving.admission import describe
from vllm_vlinders.serving.bookkeeping import active_ledger
from vllm_vlinders.serving.exchange import current_exchange
from vllm_vlinders.serving.router import active_routing
from vllm_vlinders.settings import active_settings

_MOST = 1000


async def usage(request: Request) -> Response:
    """Answer the usage of the caller's tenant, or of all for who manages; CSV is the ledger alone."""
    access, exchange = active_access(), current_exchange.get()
    grant = None if exchange is None else exchange.grant
    tenant = request.query_params.get("tenant")
    if access is not None:
        if grant is None:
            raise RequestError("usage needs a credential", status=401, code="missing")
        if not grant.role.management:
            tenant = grant.principal.tenant
    form = request.query_params.get("format", "json")
    if form not in ("json", "csv"):
        raise RequestError(f"format: {form[:20]!r} is not allowed; give json or csv", param="format")
    report, lines = await _ledger(request, tenant)
    if report is None and (access is None or form == "csv"):
        raise RequestError(
            "this server keeps no ledger of usage (usage.enabled)", status=404, code="no_ledger"
        )
    if form == "csv":
        return PlainTextResponse(lines, media_type="text/csv")
    routed: dict[str, Any] = {}
    if active_routing() is not None and (grant is None or grant.role.management):
        routed = {"routing": saved()}  # it is that of all tenants together
    if access is None or grant is None:
        return JSONResponse({"usage": report, **routed})
    subjects, complete = await _limits(request, access, grant)
    return JSONResponse({"usage": report, "subjects": subjects, "complete": complete, **routed})


async def _ledger(request: Request, tenant: str | None) -> tuple[dict[str, Any] | None, str]:
    """Return the report of the ledger and its lines as CSV; None where none is kept.

    Raises:
        RequestError: the days are none.
        StoreError: it cannot be read.
    """
    ledger = active_ledger()
    if ledger is None:
        return None, ""
    from vllm_vlinders.usage.report import as_csv, parse_days, report

    asked = request.query_params
    try:
        days = parse_days(asked.get("from"), asked.get("to"), asked.get("month"), time.time())
    except ValueError as error:
        raise RequestError(str(error), param="from", code="invalid_days") from None
    found, lost = await asyncio.to_thread(ledger.read, days.first, days.last, tenant)
    gpus = active_settings().usage if tenant is None else None
    return report(found, lost, days, gpus), as_csv(found)


async def _limits(request: Request, access: Access, grant: Grant) -> tuple[dict[str, Any], bool]:
    """Return how full the limits of those asked for are, and whether that is all of them."""
    wanted = [grant.principal]
    if grant.role.management:
        asked = request.query_params
        # A store of many keys takes a while: in a thread, so that other requests go on.
        wanted = await asyncio.to_thread(_wanted, access, asked.get("principal"), asked.get("tenant"))
    subjects: dict[str, Any] = {}
    for principal in wanted[:_MOST]:
        subjects.update(describe(await access.book.levels(access.book.plan(principal))))
    return subjects, len(wanted) <= _MOST


def _wanted(access: Access, name: str | None, tenant: str | None) -> list[Principal]:
    records = [] if access.directory is None else list(access.directory.index.records.values())
    found = {
        Principal(record.principal, record.tenant, record.role)
        for record in records
        if name in (None, record.principal) and tenant in (None, record.tenant)
    }
    if tenant is not None or name is not None:
        found = found or {Principal(name or "", tenant or "", "")}
    return sorted(found, key=lambda principal: (principal.tenant, principal.name))


ROUTES = (("/vlinders/usage", usage, "GET"),)
