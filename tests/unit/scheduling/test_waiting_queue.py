"""The waiting queue under every policy, held against the obvious implementation of its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeClock, FakeRequest, make_desk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vllm_vlinders.scheduling.policies import KeyPolicy
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

AGING = 30.0
LOWEST_OF_BAND = {0: 0, 1: 1, 2: 51, 3: 91, 4: 101, 5: 1001}
Queue = WaitingQueue[FakeRequest]


class Machine(RuleBasedStateMachine):
    """Requests come, are skipped, start, are preempted, end and leave; time passes."""

    policy = "fcfs"

    @initialize()
    def start(self) -> None:
        self.clock = FakeClock()
        self.desk = make_desk(self.clock, policy=self.policy, aging_seconds=AGING)
        self.queue: Queue = WaitingQueue(self.desk)
        self.waiting: list[FakeRequest] = []
        self.running: list[FakeRequest] = []
        self.back = self.front = 0

    def order(self, request: FakeRequest) -> Any:
        """The sort key that the policy promises, computed anew from what it is defined by."""
        return request.place

    @rule(urgency=st.sampled_from([0, 1, 50, 51, 100, 101, 1000]), tenant=st.sampled_from("abc"))
    def add(self, urgency: int, tenant: str) -> None:
        request = FakeRequest(urgency, tenant, start_within=urgency + 1.0, max_tokens=1 + urgency % 7)
        self.back += 1
        request.place, request.arrival, request.queued = self.back, self.clock.now, self.clock.now
        self.queue.add_request(request)
        self.waiting.append(request)

    @precondition(lambda self: self.waiting)
    @rule()
    def pop(self) -> None:
        first = self.queue.peek_request()
        assert self.queue.pop_request() is first
        self.waiting.remove(first)
        self.running.append(first)

    @precondition(lambda self: self.waiting)
    @rule(count=st.integers(1, 4))
    def skip(self, count: int) -> None:
        skipped = []
        for _ in range(min(count, len(self.queue))):
            skipped.insert(0, self.queue.pop_request())
        self.queue.prepend_requests(skipped)
        for request in skipped:
            self.front -= 1
            request.place = self.front

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.running))
        self.running.remove(request)
        request.num_preemptions += 1
        request.queued = self.clock.now
        self.front -= 1
        request.place = self.front
        self.queue.prepend_request(request)
        self.waiting.append(request)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 50))
    def compute(self, data: st.DataObject, tokens: int) -> None:
        request = data.draw(st.sampled_from(self.running))
        request.num_computed_tokens += tokens
        self.desk.charge({request.request_id: tokens})
        self.desk.step += 1

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.running))
        self.running.remove(request)
        self.desk.finished(request.request_id)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sets(st.sampled_from(self.waiting))) if self.waiting else set()
        self.queue.remove_requests({*chosen, FakeRequest()})
        for request in chosen:
            self.waiting.remove(request)
            self.desk.finished(request.request_id)

    @rule(seconds=st.sampled_from([0.5, AGING, 3.7 * AGING]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.desk.step += 1

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert sorted(r.request_id for r in self.queue) == sorted(r.request_id for r in self.waiting)
        assert len(self.queue) == len(self.waiting)
        assert bool(self.queue) == bool(self.waiting)
        assert set(self.desk.tickets) == {r.request_id for r in (*self.waiting, *self.running)}
        assert self.desk.counts["policy_errors"] == 0

    @invariant()
    def the_first_is_as_specified(self) -> None:
        if self.waiting:
            first = self.queue.peek_request()
            assert self.order(first) == min(map(self.order, self.waiting))

    @invariant()
    def nothing_is_kept_of_what_has_left(self) -> None:
        if not self.waiting:
            assert not self.desk.ledgers[0]._waiting
            assert not +self.desk._waiting

    @invariant()
    def whoever_may_displace_is_not_overlooked(self) -> None:
        gap = self.desk.settings.preemption.min_gap
        for running in (0, 50, 51, 950, 1000):
            urgent = any(request.urgency >= running + gap for request in self.waiting)
            assert self.desk.urgent_may_wait(running) or not urgent
        if not self.waiting:
            assert not self.desk.urgent_may_wait(0)


def since(request: FakeRequest) -> float:
    band = band_of(request.urgency)
    width = LOWEST_OF_BAND[band + 1] - LOWEST_OF_BAND[band]
    return request.arrival - (band + (request.urgency - LOWEST_OF_BAND[band]) / width) * AGING


def band_of(urgency: int) -> int:
    return max(band for band, lowest in LOWEST_OF_BAND.items() if lowest <= urgency)


class ByPriority(Machine):
    policy = "priority"

    def order(self, request: FakeRequest) -> Any:
        return since(request), request.place


class Fair(Machine):
    policy = "fair"

    def level(self, band: int) -> float:
        oldest = min(r.queued for r in self.waiting if band_of(r.urgency) == band)
        return band + (self.clock.now - oldest) / AGING

    def order(self, request: FakeRequest) -> Any:
        band = band_of(request.urgency)
        served = self.desk.ledgers[0].served(request.tenant)
        own = [r for r in self.waiting if r.tenant == request.tenant and band_of(r.urgency) == band]
        first = min(own, key=lambda r: (r.num_preemptions == 0, since(r), r.place))
        return round(-self.level(band), 9), -band, served, first is not request


class Deadline(Machine):
    policy = "deadline"

    def order(self, request: FakeRequest) -> Any:
        return request.arrival + request.urgency + 1.0, request.place


class ShortestJobFirst(Machine):
    """Without experience, as requests end without output here; with it: see test_policies."""

    policy = "sjf"

    def order(self, request: FakeRequest) -> Any:
        work = request.num_prompt_tokens + request.max_tokens
        return work + request.arrival * 1024 / AGING, request.place


class RoundRobin(Machine):
    policy = "round_robin"

    def order(self, request: FakeRequest) -> Any:
        """Any tenant may have the turn; each goes by place."""
        first = self.queue.peek_request()
        return request.place if request.tenant == first.tenant else float("inf")


class Broken(KeyPolicy):
    """Raises when it sees a certain priority."""

    def key(self, ticket: Ticket) -> int:
        if ticket.priority == 13:
            message = "unlucky"
            raise ZeroDivisionError(message)
        return -ticket.place


@pytest.mark.parametrize(
    "machine", [Machine, ByPriority, Fair, Deadline, ShortestJobFirst, RoundRobin], ids=lambda m: m.policy
)
def test_queue_agrees_with_its_definition(machine: type[Machine]) -> None:
    case = machine.TestCase
    case.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
    case("runTest").runTest()


def test_without_a_policy_of_its_own_it_is_first_come_first_served_operation_by_operation() -> None:
    """The order of `Machine` is by place; a prepended one stands first."""
    queue: Queue = WaitingQueue(make_desk(policy="fcfs"))
    first, second, third = FakeRequest(), FakeRequest(), FakeRequest()
    queue.add_request(first)
    queue.add_request(second)
    queue.prepend_request(third)
    assert list(queue) == [third, first, second]
    assert queue[0] is third
    queue.remove_request(first)
    with pytest.raises(ValueError, match="is not waiting"):
        queue.remove_request(first)
    queue.clear()
    assert not queue


def test_what_was_peeked_is_popped_although_time_passes() -> None:
    clock = FakeClock()
    queue: Queue = WaitingQueue(make_desk(clock, policy="fair", aging_seconds=AGING))
    old, urgent = FakeRequest(0), FakeRequest(60)
    queue.add_request(old)
    clock.now += 1.9 * AGING
    queue.add_request(urgent)
    assert queue.peek_request() is urgent
    clock.now += 10 * AGING
    assert queue.pop_request() is urgent


def test_in_a_new_step_time_and_service_count() -> None:
    clock = FakeClock()
    desk = make_desk(clock, policy="fair", aging_seconds=AGING)
    queue: Queue = WaitingQueue(desk)
    first, second = FakeRequest(tenant="a"), FakeRequest(tenant="b")
    queue.add_request(first)
    queue.add_request(second)
    assert queue.peek_request() is first
    desk.ledgers[0].charge("a", 1)
    desk.step += 1
    assert queue.peek_request() is second


def test_of_an_old_backlog_the_urgent_one_is_known_and_can_be_put_first_for_a_step() -> None:
    clock = FakeClock()
    desk = make_desk(clock, policy="fair", aging_seconds=AGING)
    queue: Queue = WaitingQueue(desk)
    old, later, urgent = FakeRequest(0), FakeRequest(0), FakeRequest(1000)
    queue.add_request(old)
    queue.add_request(later)
    clock.now += 5 * AGING
    queue.add_request(urgent)
    assert queue.peek_request() is old
    ticket = queue.most_urgent()
    assert ticket is not None
    assert ticket.request is urgent
    skipped: Queue = WaitingQueue(desk)
    skipped.add_request(FakeRequest(0))
    clock.now += 5 * AGING
    desk.step += 1
    assert queue.outranks(skipped)
    skipped.put_first(skipped.head())
    assert not queue.outranks(skipped)
    queue.put_first(ticket)
    skipped.pop_request()
    skipped.add_request(FakeRequest(1000))
    assert queue.outranks(skipped)
    assert queue.pop_request() is urgent
    assert queue.pop_request() is old


@pytest.mark.parametrize("call", [Queue.peek_request, Queue.pop_request])
def test_an_empty_queue_has_no_first_request(call: Callable[[Queue], FakeRequest]) -> None:
    with pytest.raises(IndexError):
        call(WaitingQueue(make_desk()))


def test_a_policy_that_raises_is_replaced_by_the_order_of_arrival() -> None:
    desk = make_desk(policy=f"{__name__}:Broken")
    queue: Queue = WaitingQueue(desk)
    requests = [FakeRequest(urgency) for urgency in (1, 2, 13, 4)]
    for request in requests[:2]:
        queue.add_request(request)
    assert queue.peek_request() is requests[1]
    for request in requests[2:]:
        queue.add_request(request)
    assert list(queue) == requests
    assert desk.counts["policy_errors"] == 1
    other: Queue = WaitingQueue(desk)  # up to some release vLLM has two queues
    for request in (FakeRequest(13), FakeRequest(1)):
        other.add_request(request)
    other.peek_request()
    assert desk.counts["policy_errors"] == 2
    assert [type(error) for error in desk.failures] == [ZeroDivisionError]  # type: ignore[attr-defined]


def test_removed_requests_do_not_pile_up() -> None:
    desk = make_desk(policy="fair")
    queue: Queue = WaitingQueue(desk)
    queue.add_request(FakeRequest(5))
    for number in range(10_000):
        request = FakeRequest(tenant=f"tenant {number}")
        queue.add_request(request)
        queue.remove_request(request)
        desk.finished(request.request_id)
    assert len(queue._policy._bands[0]._by_age._heap) < 200  # type: ignore[attr-defined]
    assert len(desk.ledgers[0]._served) < 3000
    assert len(desk._waiting) == 1
    assert len(desk.tickets) == 1
