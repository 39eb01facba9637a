"""What is known of a request while the API server handles it. A leaf: no imports from the package."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple


class RequestContext(NamedTuple):
    """One request, as the stages of the pipeline learn about it; each stage returns a new one.

    Attributes:
        request_id: made by the pipeline, unique; the client gets it in ``X-Vlinders-Request-Id``.
        principal: who calls (an API key or JWT subject); None until a stage authenticates.
        tenant: who pays; None until known.
        role: the principal's role; None until known.
        session: the conversation or agent run the request belongs to, or None.
        priority: 0 to 1000, larger first; None when no header gave one (the body still may).
        default_priority: that of a request that gives none, by the caller's role; None: the tenant's.
        highest_priority: what is above counts as this, by the caller's role; None: no such limit.
        deadline: the moment (of ``time.monotonic``) by which the request must have started, or None.
        route: name of the route that chose the model, or None.
    """

    request_id: str
    principal: str | None = None
    tenant: str | None = None
    role: str | None = None
    session: str | None = None
    priority: int | None = None
    default_priority: int | None = None
    highest_priority: int | None = None
    deadline: float | None = None
    route: str | None = None


current_request: ContextVar[RequestContext | None] = ContextVar("vlinders_request", default=None)
"""The request being handled; None outside an HTTP request, as in ``LLM.generate``.

Read it in the request's own task. A background task that the request happens to start first, as
vLLM's output handler, would see this request's context for ever.
"""
