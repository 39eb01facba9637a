"""Which number the engine core gets for a request: the one decision of the priority patches."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from vllm_vlinders.request_context import current_request
from vllm_vlinders.scheduling.priority import check_priority, engine_priority
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.settings import active_settings

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def body_speaks_vllm() -> bool:
    """Tell whether ``scheduler.body_priority`` is ``vllm``: bodies and Python callers use its scale."""
    return active_settings().scheduler.body_priority == "vllm"


def for_engine(priority: int) -> int:
    """Return ``Request.priority`` for a request being added.

    The header outranks `priority`; a tenant's default, else its role's, takes the place of 0, and the
    caps of both hold.

    Raises:
        InvalidPriorityError: `priority` is not on the scale 0..1000 (where that scale is in use).
    """
    context = current_request.get()
    if context is None:
        return priority if body_speaks_vllm() else engine_priority(check_priority(priority, "priority"))
    limits = active_settings().scheduler.tenant(context.tenant or DEFAULT_TENANT).priority
    cap = limits.cap
    if context.highest_priority is not None:
        cap = min(cap, context.highest_priority)
    if context.priority is not None:
        return engine_priority(min(context.priority, cap))
    asked = -priority if body_speaks_vllm() else check_priority(priority, "priority")
    return engine_priority(min(asked or limits.default or context.default_priority or 0, cap))


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
