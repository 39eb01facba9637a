"""Who makes room: the least urgent running request, for KV blocks and for a more urgent one that waits."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.scheduling_room import make_room
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.running_order import restore_order
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_URGENCY = attrgetter("priority")


class SchedulerVictim(VLLMPatch):
    """Wraps ``schedule``: keeps the running requests sorted, the least urgent last, and makes room."""

    name = "engine_core_scheduler_victim"
    target = _SCHEDULER
    feature = "priority"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "vLLM's first-come-first-served policy preempts the request at the end of `running`, chosen "
        "inline in schedule(), and only when KV blocks run out. Keeping `running` in order (stable; what a "
        "step has added is inserted) makes that the least urgent, latest one, and gives the "
        "token budget to the urgent first; before that, an urgent request that finds all slots or blocks "
        "taken gets those of a much less urgent one. No extension point chooses a victim."
    )
    upstream = "none: vLLM has no registry of scheduling policies"
    remove_when = "vLLM lets a plugin choose the victim of a preemption, and preempts for a slot"
    relies_on = (
        f"{_SCHEDULER}._preempt_request",
        f"{_SCHEDULER}._is_blocked_waiting_status",
        "vllm.v1.structured_output.request:StructuredOutputRequest.grammar",
        "vllm.v1.core.block_pool:BlockPool.get_num_free_blocks",
        "vllm.v1.core.kv_cache_manager:KVCacheManager.get_computed_blocks",
    )
    fingerprints = FINGERPRINTS

    def schedule(self: Any, *args: Any, **options: Any) -> Any:
        """Sort and make room, then schedule as vLLM does."""
        waiting = self.waiting
        if isinstance(waiting, WaitingQueue) and waiting.by_priority:
            desk = waiting.desk
            restore_order(self.running, desk.least_urgent, _URGENCY)
            if self.running and (waiting or getattr(self, "skipped_waiting", ())):
                make_room(self)
            desk.least_urgent = self.running[-1] if self.running else None
        return SchedulerVictim.original.schedule(self, *args, **options)
