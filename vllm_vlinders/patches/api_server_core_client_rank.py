"""Send the requests of a session to the data-parallel rank that has its KV blocks."""

from __future__ import annotations

import asyncio
from typing import Any

from vllm_vlinders.metrics.sessions import count_rank
from vllm_vlinders.patches.base import FINGERPRINTS, VERSIONS
from vllm_vlinders.patching.declare import VLLMPatch
from vllm_vlinders.patching.lifecycle import publish_facts
from vllm_vlinders.scheduling.tags import session_in
from vllm_vlinders.sessions.affinity import Affinity
from vllm_vlinders.settings import active_settings

_SHOW_SECONDS = 1.0
_CLIENT = "vllm.v1.engine.core_client:DPLBAsyncMPClient"


class CoreClientRank(VLLMPatch):
    """Wraps ``get_core_engine_for_request``: names the rank, as a client could by header."""

    name = "api_server_core_client_rank"
    target = _CLIENT
    feature = "sessions"
    process = "api_server"
    versions = VERSIONS
    why = (
        "vLLM's balancer knows loads only: with two ranks, every other turn of a conversation finds none of its "
        "prefix. Only clients can name a rank, and they know neither the loads nor how many ranks there are."
    )
    upstream = "https://github.com/vllm-project/vllm/issues/52463"
    remove_when = "vLLM's balancer keeps sessions together, or takes a policy from a plugin"
    relies_on = (
        f"{_CLIENT}.__init__",
        f"{_CLIENT}.process_engine_outputs",
        "vllm.v1.engine:EngineCoreRequest",
    )
    fingerprints = FINGERPRINTS

    def get_core_engine_for_request(self: Any, request: Any) -> Any:
        """Choose the rank of a session's request; leave all others to vLLM."""
        session = session_in(request.trace_headers)
        if (
            session is None
            or request.data_parallel_rank is not None
            or request.pooling_params is not None
            or request.request_id in self.reqs_in_flight  # the next input of a stream
        ):
            return CoreClientRank.original.get_core_engine_for_request(self, request)
        affinity = _affinity(self)
        rank = request.data_parallel_rank = affinity.choose(session.name, _loads(self))
        self.lb_engines[rank][0] += self.client_count  # as vLLM does for a rank of its own choice
        try:
            return CoreClientRank.original.get_core_engine_for_request(self, request)
        finally:
            request.data_parallel_rank = None
            _show_soon(self, affinity)


def _affinity(client: Any) -> Affinity:
    """Return what remembers the ranks of sessions; it lives as long as the client."""
    affinity: Affinity | None = getattr(client, "vlinders_affinity", None)
    if affinity is None:
        affinity = client.vlinders_affinity = Affinity(active_settings().sessions.max_skew, count_rank)
    return affinity


def _show_soon(client: Any, affinity: Affinity) -> None:
    """Publish the counts, at most once in `_SHOW_SECONDS`."""
    if getattr(client, "vlinders_affinity_shown", False):
        return
    client.vlinders_affinity_shown = True

    def show() -> None:
        client.vlinders_affinity_shown = False
        publish_facts("session_ranks", dict(affinity.counts))

    asyncio.get_running_loop().call_later(_SHOW_SECONDS, show)


def _loads(client: Any) -> list[float]:
    """Return the load of each rank: what was reported last, or what is in flight from here if that is more.

    vLLM's balancer raises its copy of the report by as many as there are API servers for each request, as if all
    others had sent as much. That spreads a burst, but where little runs it would send sessions away from ranks that
    are not crowded: so the report counts as it came, ten times a second.
    """
    if getattr(client, "vlinders_report", None) is not client.lb_engines:
        client.vlinders_report = client.lb_engines
        client.vlinders_reported = [waiting + running for waiting, running, *_ in client.lb_engines]
    engines = zip(client.core_engines, client.vlinders_reported, strict=False)
    return [max(client.engine_inflight[engine], reported) for engine, reported in engines]
