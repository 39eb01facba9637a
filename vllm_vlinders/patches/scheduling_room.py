"""Preempt a running request for a more urgent one that waits: what is read of vLLM's scheduler for it.

Whether and whom is decided in `scheduling.preemption`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from vllm_vlinders.scheduling.preemption import Candidate
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue


def make_room(scheduler: Any) -> None:
    """Preempt one request if one that waits may displace it: the next one, else one of the highest band.

    Args:
        scheduler: vLLM's; its ``running`` is sorted, the least urgent last, and not empty.
    """
    desk = scheduler.waiting.desk
    shares_count = desk.contended and scheduler.waiting.by_share
    if not shares_count and not desk.urgent_may_wait(-scheduler.running[-1].priority):
        return
    now = desk.clock()
    if not desk.preemption.may(now) or scheduler.connector is not None:
        return
    for queue, waiting in _claimants(scheduler):
        shortage = _shortage(scheduler, waiting)
        if shortage is None or not _could_run(scheduler, waiting.request):
            continue
        eligible = _reason(scheduler, queue, waiting, shortage)
        if eligible is None:
            continue
        candidates = _candidates(scheduler, waiting, blocks_are_kept=shortage == "slots")
        victim = desk.preemption.choose(candidates, eligible, now)
        if victim is not None:
            desk.counts[f"preemptions_{shortage}"] += 1
            _preempt(scheduler, victim.request)
            queue.put_first(waiting)
            return


def _claimants(scheduler: Any) -> Iterator[tuple[WaitingQueue[Any], Ticket]]:
    """Yield who may displace a running request, and the queue it waits in."""
    both = (getattr(scheduler, "skipped_waiting", None), scheduler.waiting)
    queues = [queue for queue in both if isinstance(queue, WaitingQueue) and queue]
    if len(queues) == len(both) and queues[1].outranks(queues[0]):
        queues.reverse()
    for queue in queues:
        yield queue, queue.head()
    for queue in queues:
        urgent = queue.most_urgent()
        if urgent is not None and urgent.band > queue.head().band:
            yield queue, urgent


def _preempt(scheduler: Any, request: Any) -> None:
    desk = scheduler.waiting.desk
    scheduler.running.remove(request)
    desk.making_room = True
    try:
        scheduler._preempt_request(request, time.monotonic())
    finally:
        desk.making_room = False
    # As after `reset_prefix_cache`: should it resume in this very step, it is new to the worker.
    scheduler.prev_step_scheduled_req_ids.discard(request.request_id)


def _reason(
    scheduler: Any, queue: WaitingQueue[Any], waiting: Ticket, shortage: str
) -> Callable[[Ticket], bool] | None:
    """Return which running requests have a reason to make room for `waiting`; None if none has."""
    desk = queue.desk
    least = desk.tickets.get(scheduler.running[-1].request_id)
    if least is not None and desk.preemption.urgent(waiting, least):
        return lambda running: desk.preemption.urgent(waiting, running)
    if shortage == "slots" and desk.contended and queue.by_share:
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
    request = waiting.request
    tokens = request.num_tokens
    if not scheduler.scheduler_reserve_full_isl:
        tokens = min(tokens, scheduler.max_num_scheduled_tokens)
    blocks = -(-tokens // scheduler.block_size)
    return "blocks" if lacks_blocks(scheduler.kv_cache_manager, request, blocks) else None


def lacks_blocks(manager: Any, request: Any, blocks: int) -> bool:
    """Tell whether a waiting request that needs so many KV blocks would not get them.

    Those of its cached prefix that a running request uses are shared; all others are taken from the free ones.
    """
    free = manager.block_pool.get_num_free_blocks() - manager.watermark_blocks
    if free >= blocks:
        return False
    hits = manager.coordinator.find_longest_cache_hit(request.block_hashes, request.num_tokens - 1)[0][0]
    return bool(free < blocks - sum(block.ref_cnt > 0 for block in hits))


def _slots(scheduler: Any) -> int:
    """Return how many requests may run; vLLM has a limit of its own for this from 0.31 on."""
    return int(getattr(scheduler, "max_num_active_reqs", scheduler.max_num_running_reqs))


def _candidates(scheduler: Any, waiting: Ticket, *, blocks_are_kept: bool) -> Iterator[Candidate]:
    """Yield the running requests that may be preempted for `waiting`.

    With prefix caching, full blocks outlive a preemption for a slot; one for blocks uses them up.
    """
    tickets = scheduler.waiting.desk.tickets
    kept = blocks_are_kept and scheduler.cache_config.enable_prefix_caching
    frees_adapter = _adapter_question(scheduler, waiting.request)
    for request in scheduler.running:
        ticket = tickets.get(request.request_id)
        if ticket is None or request.resumable or not frees_adapter(request):
            continue
        computed = request.num_computed_tokens
        yield Candidate(ticket, computed % scheduler.block_size if kept else computed)


def _adapter_question(scheduler: Any, request: Any) -> Callable[[Any], bool]:
    """Return what tells whether the LoRA adapter of `request` can be loaded once a running request is gone."""
    wanted = _adapter(request)
    if not scheduler.lora_config or wanted is None:
        return lambda _: True
    users = Counter(adapter for r in scheduler.running if (adapter := _adapter(r)) is not None)
    most = scheduler.lora_config.max_loras

    def frees(victim: Any) -> bool:
        gone = _adapter(victim)
        return bool(users[wanted] > (gone == wanted) or len(users) - (users[gone] == 1) < most)

    return frees


def _adapter(request: Any) -> Any:
    return request.lora_request.lora_int_id if request.lora_request else None
