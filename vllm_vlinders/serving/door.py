"""The door of the engine: what vLLM knows of a request there, and the stages could not.

These functions are called by patches. Whatever the body said and however vLLM read it, here the prompt
has its tokens, the answer its greatest length, and the adapter its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.exchange import Exchange, current_exchange
from vllm_vlinders.serving.refusals import exchange_of, expect

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Meter:
    """What one exchange asks of the engine, and gets.

    Attributes:
        limit: the most tokens of one answer; None: as many as fit.
        prompt: tokens of all prompts that have gone in.
        most_output: tokens that may come out for them.
        output: tokens that have come out.
        reserve: called with `prompt` and `most_output` when they have grown.

    The last one raises `RequestError` where there is no room for so much.
    """

    limit: int | None = None
    prompt: int = 0
    most_output: int = 0
    output: int = 0
    reserve: Callable[[int, int], None] | None = None


def enter(
    engine_request_id: str, *, prompt: int, answers: int, max_tokens: int | None, adapter: str | None
) -> int | None:
    """Let a request of the current exchange in; return the most tokens that its answer may have.

    Args:
        engine_request_id: its id in the engine.
        prompt: how many tokens its prompt has.
        answers: how many answers it wants.
        max_tokens: how long one may be, as vLLM has it; None where the request generates nothing.
        adapter: the name of its LoRA adapter, or None.

    Raises:
        RequestError: the role or a quota does not allow it; the exchange is answered so.
    """
    exchange = current_exchange.get()
    if exchange is None or exchange.grant is None or exchange.meter is None:
        return max_tokens
    expect(engine_request_id)
    meter, grant = exchange.meter, exchange.grant
    try:
        if adapter is not None:
            grant.check_model(adapter)
        grant.check_context(prompt)
        grant.check_sizes({"n": answers})
        if max_tokens is not None:
            longest = None if grant.role.max_context is None else grant.role.max_context - prompt
            bounds = [bound for bound in (max_tokens, meter.limit, longest) if bound is not None]
            max_tokens = max(1, min(bounds))
        prompts, outputs = meter.prompt + prompt, meter.most_output + answers * (max_tokens or 0)
        if meter.reserve is not None:
            meter.reserve(prompts, outputs)
    except RequestError as error:
        exchange.refusal = exchange.refusal or error
        raise
    meter.prompt, meter.most_output = prompts, outputs
    return max_tokens


def may_choose_rank() -> bool:
    """Tell whether the caller may say which data-parallel rank serves the request."""
    exchange = current_exchange.get()
    return exchange is None or exchange.grant is None or exchange.grant.role.rank


def may_name_session() -> bool:
    """Tell whether the caller may say which session the request belongs to."""
    exchange = current_exchange.get()
    return exchange is None or exchange.grant is None or exchange.grant.role.session


def meter_of(engine_request_id: str) -> Meter | None:
    """Return the meter of the exchange that the engine's request belongs to."""
    exchange: Exchange | None = exchange_of(engine_request_id)
    return None if exchange is None else exchange.meter
