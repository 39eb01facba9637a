"""Count what comes out of the engine for each request: tokens, and the times that vLLM knows."""

from __future__ import annotations

import time
from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.measure import tell_late
from vllm_vlinders.serving.meter import Meter
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
        states = self.request_states
        seen = [
            (state, output, state.is_prefilling, None if state.stats is None else state.stats.last_token_ts)
            for output in engine_core_outputs
            if (state := states.get(output.request_id)) is not None
        ]  # what vLLM is about to overwrite
        result = OutputProcessorMeter.original.process_outputs(
            self, engine_core_outputs, engine_core_timestamp, *args, **options
        )
        of_several = []
        for state, output, first, last in seen:
            exchange = _exchange_of(state)
            if exchange is None:
                continue
            exchange.meter.output += len(output.new_token_ids)  # vLLM has cut what came after a stop string
            if first:
                _count_first(exchange.meter, state, output)
            elif last is not None and engine_core_timestamp is not None:
                exchange.meter.waited_for_output(engine_core_timestamp - last)
            if exchange.finished:
                tell_late(exchange)
            if state.parent_req is not None:  # one of n answers
                of_several.append((exchange.meter, state))
        for meter, state in reversed(of_several):
            _count_cached_at_the_end(meter, state)
        return result


def _exchange_of(state: Any) -> Exchange | None:
    """Return the exchange that a request of vLLM's belongs to, looked up at its first output."""
    try:
        found: Exchange | None = state.vlinders_exchange
    except AttributeError:
        parent = state.parent_req
        found = state.vlinders_exchange = exchange_of(
            state.request_id if parent is None else parent.request_id
        )
    return found


def _count_first(meter: Meter, state: Any, output: Any) -> None:
    if output.new_token_ids and meter.first_token is None:
        meter.first_token = time.perf_counter()
    if state.parent_req is None or (_streams(state) and _not_yet(state.parent_req)):
        meter.cached += state.num_cached_tokens
    if state.stats is not None and state.stats.scheduled_ts:
        meter.queued.append(state.stats.scheduled_ts - state.stats.queued_ts)


def _count_cached_at_the_end(meter: Meter, state: Any) -> None:
    """Count the cached tokens of n answers that come at once.

    vLLM's usage has those of the answer that ended last; in a stream, of the one that began first.
    """
    if not _streams(state) and not state.parent_req.child_requests and _not_yet(state.parent_req):
        meter.cached += state.num_cached_tokens


def _streams(state: Any) -> bool:
    return bool(state.output_kind.name != "FINAL_ONLY")


def _not_yet(parent: Any) -> bool:
    """Tell whether this is the first time that it is asked of `parent`."""
    if getattr(parent, "vlinders_cached", False):
        return False
    parent.vlinders_cached = True
    return True
