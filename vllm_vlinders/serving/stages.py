"""The stages of a request, in the order they run; each returns the context with what it learned.

A stage is a plain function of the ASGI scope and the context so far. It refuses a request by raising
`RequestError`. To add one: write the function, and put it in `STAGES` at its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vllm_vlinders.errors import InvalidPriorityError
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.scheduling.priority import HEADER, parse_priority

Scope = Mapping[str, Any]
Stage = Callable[[Scope, RequestContext], RequestContext]

_PRIORITY_HEADER = HEADER.lower().encode()


def tag(scope: Scope, context: RequestContext) -> RequestContext:
    """Read the headers that say how the request is to be scheduled."""
    values = [value for name, value in scope["headers"] if name == _PRIORITY_HEADER]
    if not values:
        return context
    if len(values) > 1:
        message = f"{HEADER}: given {len(values)} times; give it once"
        raise InvalidPriorityError(message, param=HEADER, code="invalid_priority")
    return replace(context, priority=parse_priority(values[0].decode("latin-1")))


STAGES: tuple[Stage, ...] = (tag,)
