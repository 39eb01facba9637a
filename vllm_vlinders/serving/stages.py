"""The stages of a request, in the order they run.

A stage is a coroutine function that reads and changes the `Exchange`; it refuses the request by
raising `RequestError`. To add one: write the function, and put it in `STAGES` at its place.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from vllm_vlinders.errors import RequestError
from vllm_vlinders.scheduling.priority import HEADER, parse_priority
from vllm_vlinders.scheduling.tags import (
    DEADLINE_HEADER,
    TENANT_HEADER,
    parse_deadline,
    parse_tenant,
)
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.serving.admission import admit
from vllm_vlinders.serving.drain import turn_away
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.guard import authenticate, authorize
from vllm_vlinders.serving.measure import measure
from vllm_vlinders.serving.route import route
from vllm_vlinders.serving.session import session
from vllm_vlinders.settings import active_settings

Stage = Callable[[Exchange], Awaitable[None]]


async def tag(exchange: Exchange) -> None:
    """Read the headers that say how the request is to be scheduled."""
    whole = active_settings()
    settings, trusted = whole.scheduler, whole.scheduler.trust_tenant_header and whole.auth is None
    if trusted and (tenant := _one(exchange, TENANT_HEADER, "invalid_tenant")) is not None:
        exchange.context = exchange.context._replace(tenant=parse_tenant(tenant))
    priority = _one(exchange, HEADER, "invalid_priority")
    limit = _one(exchange, DEADLINE_HEADER, "invalid_deadline")
    exchange.context = exchange.context._replace(
        priority=None if priority is None else parse_priority(priority),
        deadline=None if limit is None else time.monotonic() + parse_deadline(limit),
    )
    name = exchange.context.tenant or DEFAULT_TENANT
    exchange.may_be_refused |= bool(limit or settings.deadline_ms or settings.max_queue_of(name))


def _one(exchange: Exchange, header: str, code: str) -> str | None:
    """Return the value of `header`, None where it is not given.

    Raises:
        RequestError: it is given more than once.
    """
    values = exchange.header(header)
    if len(values) > 1:
        message = f"{header}: given {len(values)} times; give it once"
        raise RequestError(message, param=header, code=code)
    return values[0] if values else None


STAGES: tuple[Stage, ...] = (
    measure, turn_away, authenticate, authorize, session, route, admit, tag,
)  # fmt: skip
