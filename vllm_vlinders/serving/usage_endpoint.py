"""``GET /vlinders/usage``: how full the limits are; callers see their own, admins all."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.access import Access, active_access
from vllm_vlinders.serving.admission import describe
from vllm_vlinders.serving.exchange import current_exchange

_MOST = 1000


async def usage(request: Request) -> Response:
    """Answer the usage of the caller; for who manages, of those asked for or of all that hold keys."""
    access, exchange = active_access(), current_exchange.get()
    if access is None or exchange is None or exchange.grant is None:
        raise RequestError("this server has no quotas: set auth and quotas", status=404, code="no_quotas")
    wanted = [exchange.grant.principal]
    if exchange.grant.role.management:
        wanted = _wanted(access, request.query_params.get("principal"), request.query_params.get("tenant"))
    subjects = {}
    for principal in wanted[:_MOST]:
        subjects.update(describe(await access.book.levels(access.book.plan(principal))))
    return JSONResponse({"subjects": subjects, "complete": len(wanted) <= _MOST})


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
