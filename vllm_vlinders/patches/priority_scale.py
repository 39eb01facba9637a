"""Which number the engine core gets for a request: the one decision of the priority patches."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from vllm_vlinders.request_context import current_request
from vllm_vlinders.scheduling.effective_priority import body_speaks_vllm, effective_priority
from vllm_vlinders.scheduling.priority import check_priority, engine_priority

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def for_engine(priority: int) -> int:
    """Return ``Request.priority`` for a request being added, by `effective_priority` where it came by HTTP.

    Raises:
        InvalidPriorityError: `priority` is not on the scale 0..1000 (where that scale is in use).
    """
    context = current_request.get()
    if context is None:
        return priority if body_speaks_vllm() else engine_priority(check_priority(priority, "priority"))
    return engine_priority(effective_priority(context, priority))


def translate(add_request: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> _Arguments:
    """Return the arguments of a call of `add_request` with ``priority`` as the engine wants it.

    Raises:
        InvalidPriorityError: see `for_engine`.
    """
    place = _place_of_priority(add_request)
    if len(args) > place:
        return (*args[:place], for_engine(args[place]), *args[place + 1 :]), options
    return args, {**options, "priority": for_engine(options.get("priority", 0))}


@cache
def _place_of_priority(add_request: Callable[..., Any]) -> int:
    return list(inspect.signature(add_request).parameters).index("priority")
