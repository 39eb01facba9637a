"""``GET /vlinders/sessions``: what is kept for sessions, in each engine core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm_vlinders.errors import RequestError
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.sessions.identity import parse_session, session_hash

_SUMS = ("sessions", "kept_blocks", "kept_free_blocks", "most_blocks")
Handler = Callable[[Request], Awaitable[Response]]


def sessions_handler(status: Callable[[], Any]) -> Handler:
    """Return the handler.

    Args:
        status: returns the reports of all processes, under ``processes``.
    """

    async def get_sessions(request: Request) -> Response:
        processes = status()["processes"]
        session = request.query_params.get("session")
        if session is None:
            return JSONResponse(summary(processes))
        tenant = request.query_params.get("tenant", DEFAULT_TENANT)
        name = session_hash(tenant, parse_session(session, "session"))
        found = where(processes, name)
        if not found:
            message = f"nothing is kept for this session of the tenant {tenant[:64]!r} (its hash is {name})"
            raise RequestError(message, status=404, param="session", code="not_found")
        return JSONResponse({"session": name, "kept": found})

    return get_sessions


def summary(processes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all engine cores' figures, their sums, and those by tenant."""
    cores = {process["name"]: facts for process in processes if (facts := process["facts"].get("sessions"))}
    tenants: dict[str, dict[str, int]] = {}
    for facts in cores.values():
        for tenant, figures in facts["tenants"].items():
            _add(tenants.setdefault(tenant, {}), figures)
    others: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for process in processes:
        _add(others, process["facts"].get("sessions", {}).get("others", {}))
        _add(ranks, process["facts"].get("session_ranks", {}))
    return {
        **{name: sum(facts.get(name, 0) for facts in cores.values()) for name in _SUMS},
        "tenants": tenants,
        "others": others,
        "ranks": ranks,
        "engine_cores": {
            name: {key: value for key, value in facts.items() if key != "latest"}
            for name, facts in cores.items()
        },
    }


def where(processes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return what each engine core keeps for the session with the hash `name`, of those used last."""
    return {
        process["name"]: found
        for process in processes
        if (found := process["facts"].get("sessions", {}).get("latest", {}).get(name))
    }


def _add(sums: dict[str, int], figures: dict[str, int]) -> None:
    for name, value in figures.items():
        sums[name] = sums.get(name, 0) + value
