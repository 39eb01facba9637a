"""Preempt a running request for a more urgent one that waits: what is read of vLLM's scheduler for it.

Whether and whom is decided in `scheduling.preemption`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from vllm_vlinders.scheduling.preemption import Candidate
from vllm_vlinders.scheduling.ticket import Ticket


def make_room(scheduler: Any) -> None:
    """Preempt one request if the first one that waits may displace it.

    Args:
        scheduler: vLLM's; its ``running`` is sorted, the least urgent last, and neither that nor its
            ``waiting`` is empty.
    """
    desk, waiting = scheduler.waiting.desk, scheduler.waiting.head()
    now = desk.clock()
    if not desk.preemption.may(now) or scheduler.connector is not None:
        return
    shortage = _shortage(scheduler, waiting)
    if shortage is None or not _could_run(scheduler, waiting.request):
        return
    eligible = _reason(scheduler, waiting, shortage)
    if eligible is None:
        return
    candidates = _candidates(scheduler, waiting, blocks_are_kept=shortage == "slots")
    victim = desk.preemption.choose(candidates, eligible, now)
    if victim is not None:
        desk.counts[f"preemptions_{shortage}"] += 1
        scheduler.running.remove(victim.request)
        desk.making_room = True
        try:
            scheduler._preempt_request(victim.request, time.monotonic())
        finally:
            desk.making_room = False
        # As after `reset_prefix_cache`: should it resume in this very step, it is new to the worker.
        scheduler.prev_step_scheduled_req_ids.discard(victim.request.request_id)


def _reason(scheduler: Any, waiting: Ticket, shortage: str) -> Callable[[Ticket], bool] | None:
    """Return which running requests have a reason to make room for `waiting`; None if none has."""
    desk = scheduler.waiting.desk
    least = desk.tickets.get(scheduler.running[-1].request_id)
    if least is not None and desk.preemption.urgent(waiting, least):
        return lambda running: desk.preemption.urgent(waiting, running)
    if shortage == "slots" and desk.contended and scheduler.waiting.by_share:
        tickets = [ticket for r in scheduler.running if (ticket := desk.tickets.get(r.request_id))]
        debtors = desk.preemption.over_share(waiting, tickets, _slots(scheduler))
        if debtors:
            return lambda running: running.tenant in debtors and running.band <= waiting.band
    return None


def _could_run(scheduler: Any, request: Any) -> bool:
    """Tell whether nothing but room keeps `request` from running."""
    from vllm.v1.core.sched.interface import PauseState
    from vllm.v1.request import RequestStatus

    if scheduler._pause_state != PauseState.UNPAUSED or request.num_stale_output_tokens:
        return False
    if request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
        # vLLM looks whether the grammar is compiled only once there is a slot.
        return request.structured_output_request.grammar is not None
    return not scheduler._is_blocked_waiting_status(request.status)


def _shortage(scheduler: Any, waiting: Ticket) -> str | None:
    """Return what `waiting` lacks, "slots" or "blocks"; None if it can start as it is."""
    if len(scheduler.running) + scheduler.num_waiting_for_streaming_input >= _slots(scheduler):
        return "slots"
    if len(scheduler.kv_cache_config.kv_cache_groups) != 1:
        return None  # a hybrid model: what it needs of each kind of block is not known here
    request, block_size = waiting.request, scheduler.block_size
    tokens = request.num_tokens
    if not scheduler.scheduler_reserve_full_isl:
        tokens = min(tokens, scheduler.max_num_scheduled_tokens)
    needed = -(-tokens // block_size)
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    if free >= needed:
        return None
    cached = scheduler.waiting.desk.cached_prefix(waiting) // block_size
    return "blocks" if free < needed - cached else None


def _slots(scheduler: Any) -> int:
    """Return how many requests may run; vLLM has a limit of its own for this from 0.31 on."""
    return int(getattr(scheduler, "max_num_active_reqs", scheduler.max_num_running_reqs))


def _candidates(scheduler: Any, waiting: Ticket, *, blocks_are_kept: bool) -> Iterator[Candidate]:
    """Yield the running requests that may be preempted for `waiting`.

    With prefix caching, full blocks outlive a preemption for a slot; one for blocks uses them up.
    """
    tickets = scheduler.waiting.desk.tickets
    kept = blocks_are_kept and scheduler.cache_config.enable_prefix_caching
    for request in scheduler.running:
        ticket = tickets.get(request.request_id)
        if ticket is None or request.resumable or not _frees_adapter(scheduler, waiting.request, request):
            continue
        computed = request.num_computed_tokens
        yield Candidate(ticket, computed % scheduler.block_size if kept else computed)


def _frees_adapter(scheduler: Any, request: Any, victim: Any) -> bool:
    """Tell whether the LoRA adapter of `request` can be loaded once `victim` is gone."""
    if not scheduler.lora_config or not request.lora_request:
        return True
    wanted = request.lora_request.lora_int_id
    others = {r.lora_request.lora_int_id for r in scheduler.running if r is not victim and r.lora_request}
    return wanted in others or len(others) < scheduler.lora_config.max_loras
