"""The door of the engine: what vLLM knows of a request there, and the stages could not.

These functions are called by patches. Whatever the body said and however vLLM read it, here the prompt
has its tokens, the answer its greatest length, and the adapter its name.
"""

from __future__ import annotations

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.exchange import Exchange, current_exchange
from vllm_vlinders.serving.measure import model_of
from vllm_vlinders.serving.refusals import expect


def enter(
    engine_request_id: str,
    *,
    prompt: int,
    answers: int,
    max_tokens: int | None,
    adapter: str | None,
    priority: int,
) -> int | None:
    """Let a request of the current exchange in; return the most tokens that its answer may have.

    Args:
        engine_request_id: its id in the engine.
        prompt: how many tokens its prompt has.
        answers: how many answers it wants.
        max_tokens: how long one may be, as vLLM has it; None where the request generates nothing.
        adapter: the name of its LoRA adapter, or None.
        priority: on the scale of 0 to 1000.

    Raises:
        RequestError: the role or a quota does not allow it; the exchange is answered so.
    """
    exchange = current_exchange.get()
    if exchange is None:
        return max_tokens
    expect(engine_request_id)
    meter = exchange.meter
    meter.model, meter.priority = adapter or "", priority
    if exchange.grant is not None:
        try:
            for check in exchange.at_door:
                check(engine_request_id)
            max_tokens = _check(exchange, prompt, answers, max_tokens, adapter)
        except RequestError as error:
            exchange.refusal = exchange.refusal or error
            raise
    meter.prompt += prompt
    meter.most_output += answers * (max_tokens or 0)
    return max_tokens


def _check(
    exchange: Exchange, prompt: int, answers: int, max_tokens: int | None, adapter: str | None
) -> int | None:
    """Hold the request against the role and the quotas of its caller, as `enter`."""
    grant, meter = exchange.grant, exchange.meter
    if grant is None:
        return max_tokens
    if adapter is not None:
        grant.check_model(adapter)
    grant.check_context(prompt)
    grant.check_sizes({"n": answers})
    if max_tokens is not None:
        longest = None if grant.role.max_context is None else grant.role.max_context - prompt
        bounds = [bound for bound in (max_tokens, meter.limit, longest) if bound is not None]
        max_tokens = max(1, min(bounds))
    if meter.reserve is not None:
        meter.reserve(
            model_of(exchange), meter.prompt + prompt, meter.most_output + answers * (max_tokens or 0)
        )
    return max_tokens


def may_choose_rank() -> bool:
    """Tell whether the caller may say which data-parallel rank serves the request."""
    exchange = current_exchange.get()
    return exchange is None or exchange.grant is None or exchange.grant.role.rank


def may_name_session() -> bool:
    """Tell whether the caller may say which session the request belongs to."""
    exchange = current_exchange.get()
    return exchange is None or exchange.grant is None or exchange.grant.role.session
