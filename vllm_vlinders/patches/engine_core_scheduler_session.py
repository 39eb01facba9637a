"""Let the engine core know the session of each request."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patches.session_board import board_of, keeps_other_blocks, show
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.scheduling.tags import session_in, without_session

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"


class SchedulerSession(VLLMPatch):
    """Wraps ``add_request``, which takes it out of what has crossed, and ``schedule``, which counts the hits."""

    name = "engine_core_scheduler_session"
    target = _SCHEDULER
    feature = "sessions"
    process = "engine_core"
    versions = VERSIONS
    why = "What crosses to the engine core in trace_headers would be sent back with each token."
    upstream = "none: vLLM has no metadata of plugins on a request"
    remove_when = "vLLM serialises metadata of plugins with EngineCoreRequest"
    relies_on = (
        "vllm.v1.request:Request.__init__",
        "vllm.v1.core.sched.output:NewRequestData",
        "vllm.v1.core.sched.output:SchedulerOutput",
    )
    fingerprints = FINGERPRINTS

    def add_request(self: Any, request: Any) -> None:
        """Note the session on the request, then add it as vLLM does."""
        session = session_in(request.trace_headers)
        if session is not None:
            request.vlinders_session = session
            request.trace_headers = without_session(request.trace_headers)
        SchedulerSession.original.add_request(self, request)

    def schedule(self: Any, *args: Any, **options: Any) -> Any:
        """Schedule as vLLM does, and count what the prefix cache held of the requests that start."""
        output = SchedulerSession.original.schedule(self, *args, **options)
        board = board_of(self)
        for new in output.scheduled_new_reqs:
            request = self.requests[new.req_id]
            session = getattr(request, "vlinders_session", None)
            tenant = None if session is None else session.tenant
            board.count(tenant, request.num_prompt_tokens, new.num_computed_tokens)
        if output.finished_req_ids and keeps_other_blocks(self):
            board.changed = True
        if board.changed:
            show(self, board)
        return output
