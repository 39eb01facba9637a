"""The scheduler's waiting queues: by priority, first come first served among equals."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

_QUEUES = "vllm.v1.core.sched.request_queue"


class SchedulerQueue(VLLMPatch):
    """Replaces the factory of request queues, in the module that calls it."""

    name = "engine_core_scheduler_queue"
    target = "vllm.v1.core.sched.scheduler"
    feature = "priority"
    process = "engine_core"
    versions = VERSIONS
    why = (
        "Requests must be ordered without --scheduling-policy priority being given. scheduler_cls could "
        "swap the whole scheduler, but it is marked as not public, excludes a company's own scheduler "
        "class, and the synchronous and asynchronous schedulers would both have to be subclassed."
    )
    upstream = "none: vLLM has no registry of scheduling policies"
    remove_when = "vLLM accepts a request queue or scheduling policy from a plugin"
    relies_on = (
        f"{_QUEUES}:RequestQueue",
        f"{_QUEUES}:FCFSRequestQueue",
        f"{_QUEUES}:create_request_queue",
        "vllm.v1.core.sched.scheduler:Scheduler._enqueue_waiting_request",
    )
    fingerprints = FINGERPRINTS

    @staticmethod
    def create_request_queue(policy: Any) -> Any:
        """Return our queue in place of the first-come-first-served one.

        With ``--scheduling-policy priority`` vLLM's own queue orders by priority, then by arrival
        time: it stays.
        """
        from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy

        if policy is not SchedulingPolicy.FCFS:
            return SchedulerQueue.original.create_request_queue(policy)
        RequestQueue.register(WaitingQueue)
        return WaitingQueue()
