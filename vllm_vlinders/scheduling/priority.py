"""The priority scale of clients, and how it maps to vLLM's.

Clients say 0 to 1000, larger is more urgent: 0 normal, 1-50 low boost, 51-90 medium, 91-100 high, 101+
urgent. Inside the engine ``Request.priority`` keeps vLLM's order, where the lower comes first.
"""

from __future__ import annotations

from vllm_vlinders.errors import InvalidPriorityError

LOWEST, HIGHEST = 0, 1000
HEADER = "X-Vlinders-Priority"
_MAX_DIGITS = 4


def check_priority(value: object, source: str) -> int:
    """Return `value` if it is an integer of the scale.

    Args:
        value: what the client gave.
        source: where, for the message: a header's or a field's name.

    Raises:
        InvalidPriorityError: it is not.
    """
    if isinstance(value, int) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST:
        return value
    allowed = f"an integer from {LOWEST} to {HIGHEST} (larger is more urgent)"
    message = f"{source}: {value!r} is not allowed; give {allowed}"
    raise InvalidPriorityError(message, param=source, code="invalid_priority")


def parse_priority(text: str, source: str = HEADER) -> int:
    """Return the priority written in `text`: decimal digits, blanks around them allowed.

    Raises:
        InvalidPriorityError: it is not an integer of the scale.
    """
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
        return check_priority(int(digits), source)
    return check_priority(text[:64], source)


def engine_priority(priority: int) -> int:
    """Return vLLM's ``Request.priority`` (lower first) for a `priority` of the clients' scale."""
    return -priority
