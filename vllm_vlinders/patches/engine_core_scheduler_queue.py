"""The scheduler's waiting queue, in the order of ``scheduler.policy``."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.scheduling_desk import install_queues
from vllm_vlinders.patching.declare import VLLMPatch

_QUEUES = "vllm.v1.core.sched.request_queue"
_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"


class SchedulerQueue(VLLMPatch):
    """Wraps ``__init__``: puts our queues in the place of the first-come-first-served ones."""

    name = "engine_core_scheduler_queue"
    target = _SCHEDULER
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
        f"{_SCHEDULER}._enqueue_waiting_request",
    )
    fingerprints = FINGERPRINTS

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        """Build the scheduler as vLLM does, then replace its still empty queues."""
        SchedulerQueue.original.__init__(self, *args, **options)  # type: ignore[misc]  # by its class, as wrappers do
        install_queues(self)
