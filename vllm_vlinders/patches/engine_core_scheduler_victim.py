"""When KV blocks run out, preempt the least urgent running request."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

_URGENCY = attrgetter("priority")


class SchedulerVictim(VLLMPatch):
    """Wraps ``schedule``: keeps the running requests sorted, the least urgent last."""

    name = "engine_core_scheduler_victim"
    target = "vllm.v1.core.sched.scheduler:Scheduler"
    feature = "priority"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "vLLM's first-come-first-served policy preempts the request at the end of `running`, chosen "
        "inline in schedule(). Sorting `running` (stable; a pass over a sorted list while priorities are equal) "
        "makes that the least urgent, latest one, and gives the token budget to the urgent first. "
        "No extension point chooses the victim."
    )
    upstream = "none: vLLM has no registry of scheduling policies"
    remove_when = "vLLM lets a plugin choose the victim of a preemption"
    fingerprints = FINGERPRINTS

    def schedule(self: Any, *args: Any, **options: Any) -> Any:
        """Sort, then schedule as vLLM does."""
        if isinstance(self.waiting, WaitingQueue):
            self.running.sort(key=_URGENCY)
        return SchedulerVictim.original.schedule(self, *args, **options)
