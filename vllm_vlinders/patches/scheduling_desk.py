"""The desk of a scheduler of vLLM: how it is made, and what it reads of the scheduler."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.logs import follow_level, make_logger, the_level
from vllm_vlinders.metrics.catalogue import AGED, PREEMPTIONS, SHED
from vllm_vlinders.patches.engine_counts_file import counts_file
from vllm_vlinders.patching.front_end import exit_refusing
from vllm_vlinders.patching.lifecycle import publish_facts
from vllm_vlinders.scheduling.desk import Desk
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue
from vllm_vlinders.settings import active_settings

SHOW_SECONDS = 1.0
PREEMPTION_REASONS = ("slots", "blocks", "vllm")


def install_queues(scheduler: Any) -> None:
    """Put our queues in the place of the first-come-first-served ones of `scheduler`.

    With ``--scheduling-policy priority`` vLLM's own queue orders by priority, then by arrival time:
    it stays. Up to 0.30 requests that were skipped wait in a queue of their own; from 0.31 those that
    hold KV blocks do, which vLLM drains first and which stays vLLM's.

    Raises:
        SystemExit: the policy of the settings cannot be used.
    """
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue, RequestQueue

    if not isinstance(scheduler.waiting, FCFSRequestQueue):
        make_logger(active_settings().logging).warning(
            "vLLM's own priority queue stays, as --scheduling-policy asks for it: scheduler.policy, tenants, "
            "deadlines and max_queue have no effect"
        )
        return
    RequestQueue.register(WaitingQueue)
    follow_level()
    desk = _make_desk(scheduler)
    _expose(desk.counts)
    scheduler.waiting = WaitingQueue(desk)
    if hasattr(scheduler, "skipped_waiting"):
        scheduler.skipped_waiting = WaitingQueue(desk)


def show(desk: Desk) -> None:
    """Show what has been counted: at once in ``/metrics``, once in `SHOW_SECONDS` in ``/vlinders/status``."""
    events = desk.counts.total()
    if events != desk.exposed:
        desk.exposed = events
        _expose(desk.counts)
    the_level().follow()
    now = desk.clock()
    if events == desk.shown or now - desk.shown_at < SHOW_SECONDS:
        return
    desk.shown_at, desk.shown = now, events
    publish_facts("scheduling", {"policy": desk.settings.policy, **desk.counts})


def _expose(counts: Counter[str]) -> None:
    file = counts_file()
    if file is None:
        return
    file.set(AGED, "", counts["aged"])
    file.set(SHED, "", counts["shed_deadline"] + counts["shed_queue_full"])
    for reason in PREEMPTION_REASONS:
        file.set(PREEMPTIONS, reason, counts[f"preemptions_{reason}"])


def _make_desk(scheduler: Any) -> Desk:
    settings = active_settings()
    log = make_logger(settings.logging)

    def cached_prefix(ticket: Ticket) -> int:
        request = ticket.request
        coordinator = scheduler.kv_cache_manager.coordinator
        return int(coordinator.find_longest_cache_hit(request.block_hashes, request.num_tokens - 1)[1])

    def on_policy_failure(error: Exception) -> None:
        log.error(
            "scheduling policy failed; requests go on in the order of arrival",
            policy=settings.scheduler.policy,
            error=f"{type(error).__name__}: {error}",
        )

    try:
        return Desk(settings.scheduler, on_policy_failure, cached_prefix)
    except SettingsError as error:
        exit_refusing(error)
