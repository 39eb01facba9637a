"""The desk: all that scheduling remembers in one engine core, shared by its queues."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol

from vllm_vlinders.lazy_heap import LazyHeap
from vllm_vlinders.scheduling.bands import BANDS, reaches, since
from vllm_vlinders.scheduling.ledger import Ledger
from vllm_vlinders.scheduling.policies import Policy, Surroundings, policy_class
from vllm_vlinders.scheduling.policies.by_key import FirstComeFirstServed
from vllm_vlinders.scheduling.preemption import Preemption
from vllm_vlinders.scheduling.refusal import Reason, stop_reason
from vllm_vlinders.scheduling.tags import decode
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.settings import SchedulerSettings

_SMOOTHING = 0.2


class Waiting(Protocol):
    """What scheduling reads of vLLM's ``Request``; identity is its equality."""

    request_id: str
    client_index: int
    priority: int
    num_prompt_tokens: int
    max_tokens: int
    num_output_tokens: int
    num_computed_tokens: int
    num_preemptions: int
    resumable: bool
    trace_headers: Mapping[str, str] | None


class Desk:
    """Draws the tickets and keeps them until their requests end.

    Args:
        settings: the section ``scheduler``.
        on_policy_failure: is told the exception, once, when the policy has raised.
        cached_prefix: see `Surroundings`.
        clock: returns seconds.

    Attributes:
        tickets: of all requests that have not ended, by request id.
        step: the number of the scheduling step; within one, the first request stays the first.
        counts: what has happened, for people: ``aged``, ``shed_…``, ``preemptions_…``, ``policy_errors``.
        making_room: whether a request is being preempted for another one that waits.
        exposed: the total of `counts` when the metrics last showed them.
        shown: the total of `counts` when people were last shown them, at the moment `shown_at`.
        least_urgent: the last of the running requests when they were last in order.
        outbox: refused requests whose clients are still to be told, each with its ``stop_reason``.

    Raises:
        SettingsError: the policy cannot be found.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        on_policy_failure: Callable[[Exception], None],
        cached_prefix: Callable[[Ticket], int] = lambda _: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.cached_prefix = cached_prefix
        weights = {name: tenant.weight for name, tenant in settings.tenants.items()}
        self.ledgers = [Ledger(weights) for _ in BANDS]
        self.preemption = Preemption(settings.preemption, self.ledgers[0].weight)
        self.tickets: dict[str, Ticket] = {}
        self.step = 0
        self.counts: Counter[str] = Counter()
        self.making_room = False
        self.exposed = 0
        self.shown = 0
        self.shown_at = float("-inf")
        self.least_urgent: Waiting | None = None
        self.outbox: list[tuple[Waiting, str]] = []
        self._policy_class = policy_class(settings.policy)
        self._policies: list[Policy] = []
        self._surroundings = Surroundings(settings, clock, self.ledgers, cached_prefix)
        self._on_policy_failure = on_policy_failure
        self._told_failure = False
        self._deadlines: LazyHeap[Ticket] = LazyHeap()
        self._over_limit: dict[Ticket, None] = {}
        self._waiting: Counter[tuple[str, int]] = Counter()
        self._waiting_in = [0] * len(BANDS)
        self._live: Counter[str] = Counter()
        self._mean_wait = 0.0
        self._back = self._front = 0

    def new_policy(self) -> Policy:
        """Return a policy for one more queue."""
        policy = self._policy_class(self._surroundings)
        self._policies.append(policy)
        return policy

    def by_arrival(self) -> Policy:
        """Return the policy that takes the place of one that has failed."""
        return FirstComeFirstServed(self._surroundings)

    def policy_failed(self, failed: Policy, error: Exception) -> None:
        """Count a policy that raised; tell of the first time."""
        self.counts["policy_errors"] += 1
        if failed in self._policies:
            self._policies.remove(failed)
        if not self._told_failure:
            self._told_failure = True
            self._on_policy_failure(error)

    def arrive(self, request: Waiting) -> Ticket:
        """Return the ticket of a request that joins a queue at its end.

        One that comes from another queue keeps its place; the next input of a session that streams
        its input is a new arrival; so is a request with the id of one that has just ended.
        """
        before = self.tickets.get(request.request_id)
        if before is not None and before.request is not request:
            self.finished(request.request_id)
            before = None
        if before is not None and not request.resumable:
            self._return(before)
            return before
        ticket = self._draw(request) if before is None else self._renew(before, request)
        self._back += 1
        ticket.place = self._back
        self.ledgers[ticket.band].arrive(ticket.tenant)
        self._count_waiting(ticket)
        return ticket

    def come_back(self, request: Waiting) -> Ticket:
        """Return the ticket of a request that was skipped or preempted, to stand before its equals."""
        ticket = self.tickets.get(request.request_id) or self._draw(request)
        self._front -= 1
        ticket.place = self._front
        if request.num_preemptions != ticket.preemptions:
            ticket.preemptions = request.num_preemptions
            if not self.making_room:
                self.counts["preemptions_vllm"] += 1
            ticket.queued = self.clock()
        self._return(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Note that `ticket` is in no queue any more."""
        kind = ticket.tenant, ticket.band
        self._waiting[kind] -= 1
        if not self._waiting[kind]:
            del self._waiting[kind]
        self._waiting_in[ticket.band] -= 1
        self.ledgers[ticket.band].leave(ticket.tenant)

    def started(self, request_id: str) -> None:
        """Note that a request runs for the first time."""
        ticket = self.tickets.get(request_id)
        if ticket is None:
            return
        self._deadlines.discard(ticket)
        waited = self.clock() - ticket.arrival
        self._mean_wait += _SMOOTHING * (waited - self._mean_wait)
        self.counts["started"] += 1
        if waited >= self.settings.aging_seconds:
            self.counts["aged"] += 1

    def finished(self, request_id: str) -> None:
        """Forget the request, which has ended; let the policies learn from it."""
        ticket = self.tickets.pop(request_id, None)
        if ticket is None:
            return
        self._deadlines.discard(ticket)
        self._over_limit.pop(ticket, None)
        self._live[ticket.tenant] -= 1
        if not self._live[ticket.tenant]:
            del self._live[ticket.tenant]
        output_tokens = ticket.request.num_output_tokens
        for policy in self._policies.copy() if output_tokens else ():
            try:
                policy.finished(ticket, output_tokens)
            except Exception as error:  # noqa: BLE001 - a company's policy may raise anything
                self.policy_failed(policy, error)

    def too_late(self) -> list[Ticket]:
        """Return those whose deadlines have passed; the caller ends them and calls `refused`."""
        late = []
        now = self.clock() if self._deadlines else 0.0
        while self._deadlines and self._deadlines.first_key() <= now:
            late.append(self._deadlines.first())
            self._deadlines.discard(late[-1])
        return late

    def too_many(self) -> list[Ticket]:
        """Return those that wait beyond the limit of their tenant and band, the latest of them.

        The caller, who asks after the step's requests have left the queue, ends them and calls `refused`.
        """
        if not self._over_limit:
            return []
        left = Counter(self._waiting)
        many = []
        for ticket in reversed(self._over_limit):
            limit = self.settings.max_queue_of(ticket.tenant)
            if limit is not None and left[ticket.tenant, ticket.band] > limit:
                left[ticket.tenant, ticket.band] -= 1
                many.append(ticket)
        self._over_limit.clear()
        return many

    def refused(self, ticket: Ticket, reason: Reason) -> None:
        """Note that a request has been turned away, for its client to be told."""
        self.counts[f"shed_{reason}"] += 1
        self.outbox.append((ticket.request, stop_reason(reason, self._mean_wait)))

    @property
    def contended(self) -> bool:
        """Tell whether more than one tenant has requests: else there is nobody to be fair to."""
        return len(self._live) > 1

    def urgent_may_wait(self, running: int) -> bool:
        """Tell whether a band has waiting requests that may be urgent enough to displace one of priority `running`.

        Read off the bands alone, in every step: False is certain, True is to be looked into.
        """
        needed = running + self.settings.preemption.min_gap
        return any(waiting and reaches(band, needed) for band, waiting in enumerate(self._waiting_in))

    def charge(self, scheduled: Mapping[str, int]) -> None:
        """Charge tenants for a step, after vLLM has advanced ``num_computed_tokens``.

        Each position of a request is charged once: what the prefix cache held was not computed, and
        what is computed again after a preemption has been paid for.

        Args:
            scheduled: request id to the number of tokens of this step.
        """
        tickets = self.tickets
        input_weight, output_weight = self.settings.input_weight, self.settings.output_weight
        services: defaultdict[tuple[str, int], float] = defaultdict(float)
        for request_id, tokens in scheduled.items():
            ticket = tickets.get(request_id)
            if ticket is None:
                continue
            end = ticket.request.num_computed_tokens
            charged, begin = ticket.charged, end - tokens
            begin = charged if charged > begin else begin  # noqa: FURB136 - max() would be called for each that runs
            if begin >= end:
                continue
            ticket.charged = end
            prompt = min(end, ticket.prompt_tokens) - begin if begin < ticket.prompt_tokens else 0
            service = prompt * input_weight + (end - begin - prompt) * output_weight
            services[ticket.tenant, ticket.band] += service
        for (tenant, band), service in services.items():
            self.ledgers[band].charge(tenant, service)

    def _draw(self, request: Waiting) -> Ticket:
        tags, request.trace_headers = decode(request.trace_headers)
        now = self.clock()
        deadline = None if tags.start_within is None else now + tags.start_within
        ticket = self._ticket(request, tags.tenant, now, deadline)
        self.tickets[request.request_id] = ticket
        self._live[ticket.tenant] += 1
        if deadline is not None:
            self._deadlines.push(ticket, deadline)
        limit = self.settings.max_queue_of(ticket.tenant)
        if limit is not None and self._waiting[ticket.tenant, ticket.band] >= limit:
            self._over_limit[ticket] = None
        return ticket

    def _renew(self, before: Ticket, request: Waiting) -> Ticket:
        """Return a new ticket for the next input of a session that streams its input."""
        ticket = self._ticket(request, before.tenant, self.clock(), None)
        ticket.charged = before.charged
        self.tickets[request.request_id] = ticket
        return ticket

    def _ticket(self, request: Waiting, tenant: str, now: float, deadline: float | None) -> Ticket:
        priority = -request.priority
        return Ticket(
            request=request,
            tenant=tenant,
            priority=priority,
            arrival=now,
            since=since(now, priority, self.settings.aging_seconds),
            prompt_tokens=request.num_prompt_tokens,
            max_tokens=request.max_tokens,
            deadline=deadline,
        )

    def _return(self, ticket: Ticket) -> None:
        self.ledgers[ticket.band].wait(ticket.tenant)
        self._count_waiting(ticket)

    def _count_waiting(self, ticket: Ticket) -> None:
        self._waiting[ticket.tenant, ticket.band] += 1
        self._waiting_in[ticket.band] += 1
