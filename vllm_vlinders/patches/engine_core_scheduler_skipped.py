"""Up to vLLM 0.30: requests skipped in an earlier step do not overtake those that come before them."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue


class SchedulerSkipped(VLLMPatch):
    """Replaces the choice between the queue of skipped requests and that of waiting ones."""

    name = "engine_core_scheduler_skipped"
    target = {"<0.31": "vllm.v1.core.sched.scheduler:Scheduler", ">=0.31": None}
    feature = "priority"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "Up to 0.30 requests that could not run yet (a LoRA slot, a grammar, a KV transfer) wait in a "
        "second queue, which the first-come-first-served policy always drains first. From 0.31 they "
        "return to the one queue. No extension point chooses between the two."
    )
    upstream = "done: vLLM 0.31 merged the queues"
    remove_when = "0.30 is no longer supported"
    fingerprints = FINGERPRINTS

    def _select_waiting_queue_for_scheduling(self: Any) -> Any:
        skipped, waiting = self.skipped_waiting, self.waiting
        ours = isinstance(waiting, WaitingQueue) and waiting.desk.settings.policy != "fcfs"
        if not (ours and skipped and waiting):
            return SchedulerSkipped.original._select_waiting_queue_for_scheduling(self)
        return waiting if waiting.outranks(skipped) else skipped
