"""Turn away requests that cannot start in time, or that find too many of their kind waiting."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.refusal import Reason
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"


class SchedulerRefusal(VLLMPatch):
    """Wraps ``schedule``, which ends them, and ``update_from_output``, which tells their clients."""

    name = "engine_core_scheduler_refusal"
    target = _SCHEDULER
    feature = "priority"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "A request whose deadline has passed must not burn tokens, and the queue of a tenant must be "
        "bounded, counted over all API servers. vLLM's --max-num-queued-reqs counts all requests of "
        "one API server together and knows no deadlines."
    )
    upstream = "none: vLLM has neither deadlines nor tenants"
    remove_when = "vLLM lets a plugin in the engine core end a waiting request with an output"
    relies_on = (f"{_SCHEDULER}.finish_requests", "vllm.v1.engine:EngineCoreOutput")
    fingerprints = FINGERPRINTS

    def schedule(self: Any, *args: Any, **options: Any) -> Any:
        """End those that come too late, schedule as vLLM does, then end those that still wait and are too many."""
        if not isinstance(self.waiting, WaitingQueue):
            return SchedulerRefusal.original.schedule(self, *args, **options)
        desk = self.waiting.desk
        _turn_away(self, desk.too_late(), "deadline")
        output = SchedulerRefusal.original.schedule(self, *args, **options)
        _turn_away(self, desk.too_many(), "queue_full")
        return output

    def update_from_output(self: Any, *args: Any, **options: Any) -> Any:
        """Add an output for each request that was turned away."""
        outputs = SchedulerRefusal.original.update_from_output(self, *args, **options)
        if isinstance(self.waiting, WaitingQueue) and self.waiting.desk.outbox:
            from vllm.v1.engine import EngineCoreOutputs

            desk = self.waiting.desk
            for request, stop_reason in desk.outbox:
                client = outputs.setdefault(request.client_index, EngineCoreOutputs(outputs=[]))
                client.outputs.append(_output(request, stop_reason))
            desk.outbox.clear()
        return outputs


def _turn_away(scheduler: Any, tickets: list[Ticket], reason: Reason) -> None:
    """End those of `tickets` that wait."""
    if not tickets:
        return
    from vllm.v1.request import RequestStatus

    for ticket in tickets:
        request = ticket.request
        if request in scheduler.waiting or request in getattr(scheduler, "skipped_waiting", ()):
            scheduler.finish_requests(request.request_id, RequestStatus.FINISHED_ERROR)
            scheduler.waiting.desk.refused(ticket, reason)


def _output(request: Any, stop_reason: str) -> Any:
    """Return the last output of a request that was turned away.

    That of a pooling request carries an empty tensor, as vLLM's own for aborted ones.
    """
    import torch
    from vllm.v1.engine import EngineCoreOutput, FinishReason

    return EngineCoreOutput(
        request_id=request.request_id,
        new_token_ids=[],
        pooling_output=None if request.pooling_params is None else torch.empty(0),
        finish_reason=FinishReason.ERROR,
        stop_reason=stop_reason,
        events=request.take_events(),
        trace_headers=request.trace_headers,
    )
