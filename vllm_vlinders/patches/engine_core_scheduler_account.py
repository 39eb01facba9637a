"""Keep account of each step: who started, who ended, and what tenants were served."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.scheduling_desk import show
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"


class SchedulerAccount(VLLMPatch):
    """Wraps ``schedule``: reads which requests have ended before it, and what it scheduled after."""

    name = "engine_core_scheduler_account"
    target = _SCHEDULER
    feature = "priority"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "Fairness between tenants needs the tokens computed for each request, step by step, where the "
        "next one is chosen. Stat loggers see sums, in another process."
    )
    upstream = "none: vLLM knows no tenants"
    remove_when = "vLLM tells a plugin in the engine core what each step scheduled"
    relies_on = (f"{_SCHEDULER}._update_after_schedule", f"{_SCHEDULER}._free_request")
    fingerprints = FINGERPRINTS

    def schedule(self: Any, *args: Any, **options: Any) -> Any:
        """Forget who has ended, schedule as vLLM does, and charge what was scheduled."""
        waiting = self.waiting
        if not isinstance(waiting, WaitingQueue):
            return SchedulerAccount.original.schedule(self, *args, **options)
        desk = waiting.desk
        desk.step += 1
        for request_id in self.finished_req_ids:
            # An id may be in use again already.
            if request_id not in self.requests or self.requests[request_id].is_finished():
                desk.finished(request_id)
        output = SchedulerAccount.original.schedule(self, *args, **options)
        for new in output.scheduled_new_reqs:
            desk.started(new.req_id)
        if desk.contended:
            desk.charge(output.num_scheduled_tokens)
        show(desk)
        return output
