"""The priority that counts for a request, by what it gives and by what its caller may have."""

from __future__ import annotations

from vllm_vlinders.errors import InvalidPriorityError
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.scheduling.priority import HIGHEST, LOWEST, check_priority
from vllm_vlinders.scheduling.ticket import DEFAULT_TENANT
from vllm_vlinders.settings import active_settings


def body_speaks_vllm() -> bool:
    """Tell whether ``scheduler.body_priority`` is ``vllm``: bodies and Python callers use its scale."""
    return active_settings().scheduler.body_priority == "vllm"


def effective_priority(context: RequestContext, given: object) -> int:
    """Return the priority of a request, larger first; beyond 0..1000 only on vLLM's own scale.

    The header outranks `given`, the body's; a tenant's default, else its role's, takes the place of 0, and
    the caps of both hold.

    Raises:
        InvalidPriorityError: `given` is not on the scale 0..1000 (where that scale is in use), or no integer.
    """
    limits = active_settings().scheduler.tenant(context.tenant or DEFAULT_TENANT).priority
    cap = limits.cap
    if context.highest_priority is not None:
        cap = min(cap, context.highest_priority)
    if context.priority is not None:
        return min(context.priority, cap)
    return min(_of_body(given) or limits.default or context.default_priority or 0, cap)


def on_scale(priority: int) -> int:
    """Return what of the scale 0..1000 is nearest to `priority`."""
    return max(LOWEST, min(priority, HIGHEST))


def _of_body(given: object) -> int:
    if not body_speaks_vllm():
        return check_priority(given, "priority")
    if isinstance(given, int):
        return -given
    message = f"priority: {given!r} is not allowed; give an integer (smaller is more urgent)"
    raise InvalidPriorityError(message, param="priority", code="invalid_priority")
