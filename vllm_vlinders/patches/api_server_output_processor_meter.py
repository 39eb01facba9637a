"""Count what comes out of the engine for each request: tokens, and the times that vLLM knows."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.measure import tell_late
from vllm_vlinders.serving.refusals import exchange_of

_STATS = "vllm.v1.metrics.stats"


class OutputProcessorMeter(VLLMPatch):
    """Wraps ``process_outputs``, through which all outputs pass."""

    name = "api_server_output_processor_meter"
    target = "vllm.v1.engine.output_processor:OutputProcessor"
    feature = "core"
    process = "api_server"
    versions = VERSIONS
    guards_access = True
    why = (
        "Quotas are settled and tenants are charged with what was really generated, also where a client "
        "leaves in the middle or does not ask for usage in its stream. Stat logger plugins are told of "
        "requests that ended by themselves, not of aborted ones, and by an id that the client may choose "
        "and repeat; of first tokens and of gaps they see lists without requests."
    )
    upstream = "none: vLLM knows no tenants"
    remove_when = "vLLM tells a plugin usage and times of each request, by its own id, however it ended"
    relies_on = (
        "vllm.v1.engine.output_processor:RequestState.__init__",
        "vllm.v1.engine.output_processor:RequestState.make_request_output",
        "vllm.v1.engine.parallel_sampling:ParentRequest.get_outputs",
        "vllm.v1.engine:EngineCoreOutput",
        f"{_STATS}:RequestStateStats",
        f"{_STATS}:IterationStats.update_from_output",
        f"{_STATS}:IterationStats.update_from_events",
        f"{_STATS}:PrefillStats",
    )
    fingerprints = FINGERPRINTS

    def process_outputs(
        self: Any,
        engine_core_outputs: Any,
        engine_core_timestamp: float | None = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        """Process all as vLLM does, and count; what comes after the end of a request is not counted."""
        seen = [
            _seen(exchange, state, output, engine_core_timestamp)
            for output in engine_core_outputs
            if (state := self.request_states.get(output.request_id)) is not None
            and (exchange := _exchange_of(output.request_id, state.parent_req)) is not None
        ]
        result = OutputProcessorMeter.original.process_outputs(
            self, engine_core_outputs, engine_core_timestamp, *args, **options
        )
        for each in seen:
            _count(each)
        for each in reversed(seen):
            if each.state.parent_req is not None:  # one of n answers
                _count_cached_at_the_end(each)
        return result


class _Seen(NamedTuple):
    exchange: Exchange
    state: Any
    output: Any
    first: bool
    gap: float | None


def _exchange_of(request_id: str, parent: Any) -> Exchange | None:
    return exchange_of(request_id if parent is None else parent.request_id)


def _seen(exchange: Exchange, state: Any, output: Any, timestamp: float | None) -> _Seen:
    """Note what vLLM is about to overwrite: whether it is the first output, or when the last one came."""
    first, stats = state.is_prefilling, state.stats
    gap = None if first or stats is None or timestamp is None else timestamp - stats.last_token_ts
    return _Seen(exchange, state, output, first, gap)


def _count(seen: _Seen) -> None:
    """Count one output, of which vLLM has cut what came after a stop string."""
    exchange, state, output, first, gap = seen
    meter, tokens = exchange.meter, len(output.new_token_ids)
    meter.output += tokens
    if gap is not None:
        meter.waited_for_output(gap)
    if first:
        if tokens and meter.first_token is None:
            meter.first_token = time.perf_counter()
        if state.parent_req is None or (_streams(state) and _not_yet(state.parent_req)):
            meter.cached += state.num_cached_tokens
        if state.stats is not None and state.stats.scheduled_ts:
            meter.queued.append(state.stats.scheduled_ts - state.stats.queued_ts)
    if exchange.finished:
        tell_late(exchange)


def _count_cached_at_the_end(seen: _Seen) -> None:
    """Count the cached tokens of n answers that come at once.

    vLLM's usage has those of the answer that ended last; in a stream, of the one that began first.
    """
    state, parent = seen.state, seen.state.parent_req
    if not _streams(state) and not parent.child_requests and _not_yet(parent):
        seen.exchange.meter.cached += state.num_cached_tokens


def _streams(state: Any) -> bool:
    return bool(state.output_kind.name != "FINAL_ONLY")


def _not_yet(parent: Any) -> bool:
    """Tell whether this is the first time that it is asked of `parent`."""
    if getattr(parent, "vlinders_cached", False):
        return False
    parent.vlinders_cached = True
    return True
