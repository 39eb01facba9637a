"""The stages of a request, in the order they run.

A stage is a coroutine function that reads and changes the `Exchange`; it refuses the request by
raising `RequestError`. To add one: write the function, and put it in `STAGES` at its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from vllm_vlinders.errors import InvalidPriorityError
from vllm_vlinders.scheduling.priority import HEADER, parse_priority
from vllm_vlinders.serving.exchange import Exchange

Stage = Callable[[Exchange], Awaitable[None]]


async def tag(exchange: Exchange) -> None:
    """Read the headers that say how the request is to be scheduled."""
    values = exchange.header(HEADER)
    if len(values) > 1:
        message = f"{HEADER}: given {len(values)} times; give it once"
        raise InvalidPriorityError(message, param=HEADER, code="invalid_priority")
    if values:
        exchange.context = replace(exchange.context, priority=parse_priority(values[0]))


STAGES: tuple[Stage, ...] = (tag,)
