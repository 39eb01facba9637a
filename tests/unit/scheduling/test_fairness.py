"""Tenants get their shares: the bound of the VTC paper, and what the ledger is charged."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest
from fakes import FakeClock, FakeRequest, make_desk
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_vlinders.scheduling.desk import Desk
from vllm_vlinders.scheduling.ledger import Ledger
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue

SLOTS = 3
LONGEST_PROMPT, MOST_TOKENS = 8, 24


class Engine:
    """A continuous batch in the small: slots, a prompt in one step, then a token each step."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
        self.running: list[FakeRequest] = []
        self.service: dict[str, float] = defaultdict(float)

    def step(self) -> None:
        """Fill the slots, compute, and let go of what is done."""
        while self.queue and len(self.running) < SLOTS:
            self.running.append(self.queue.pop_request())
        scheduled = {}
        for request in self.running:
            tokens = 1 if request.num_computed_tokens else request.num_prompt_tokens
            weight = 2 if request.num_computed_tokens else 1
            request.num_computed_tokens += tokens
            scheduled[request.request_id] = tokens
            self.service[request.tenant] += weight * tokens
        self.desk.charge(scheduled)
        for request in self.running.copy():
            if request.num_computed_tokens >= request.num_prompt_tokens + request.max_tokens - 1:
                self.running.remove(request)
                self.desk.finished(request.request_id)


requests_of = st.lists(
    st.tuples(st.integers(1, LONGEST_PROMPT), st.integers(1, MOST_TOKENS - LONGEST_PROMPT)),
    min_size=60,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(requests_of, requests_of, st.sampled_from([1.0, 3.0]))
def test_service_of_backlogged_tenants_differs_by_no_more_than_the_papers_bound(
    first: list[tuple[int, int]], second: list[tuple[int, int]], weight: float
) -> None:
    """Theorem 4.4: over any interval, at most 2 max(w_p L_input, w_q M), M the tokens of a batch."""
    desk = make_desk(policy="fair", aging_seconds=1e9, tenants={"a": {"weight": weight}})
    engine = Engine(desk)
    for tenant, shapes in (("a", first), ("b", second)):
        for prompt, output in shapes:
            request = FakeRequest(tenant=tenant, num_prompt_tokens=prompt, max_tokens=output)
            engine.queue.add_request(request)
    bound = 2 * max(LONGEST_PROMPT, 2 * SLOTS * MOST_TOKENS)
    differences = [0.0]
    while {request.tenant for request in engine.queue} == {"a", "b"}:
        engine.step()
        differences.append(engine.service["a"] / weight - engine.service["b"])
    assert max(differences) - min(differences) <= bound


def test_service_follows_the_weights() -> None:
    desk = make_desk(policy="fair", tenants={"big": {"weight": 3}, "default": {"weight": 1}})
    engine = Engine(desk)
    for tenant in ("big", "small"):
        for _ in range(400):
            request = FakeRequest(tenant=tenant, num_prompt_tokens=4, max_tokens=4)
            engine.queue.add_request(request)
    for _ in range(400):
        engine.step()
    assert engine.service["big"] / engine.service["small"] == pytest.approx(3, rel=0.1)


def test_idling_saves_nothing_up() -> None:
    ledger = Ledger({})
    ledger.arrive("busy")
    ledger.charge("busy", 1000)
    ledger.arrive("idle")
    assert ledger.served("idle") == 1000
    ledger.charge("busy", 50)
    ledger.leave("idle")
    ledger.arrive("idle")
    assert ledger.served("idle") == 1050


def test_who_comes_to_a_band_is_level_with_those_who_wait_in_it() -> None:
    desk = make_desk(policy="fair", aging_seconds=1e9)
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    queue.add_request(FakeRequest(0, "patient"))
    for _ in range(40):
        queue.add_request(FakeRequest(100, "busy"))
    for _ in range(10):
        busy = queue.pop_request()
        busy.num_computed_tokens = 1000
        desk.charge({busy.request_id: 1000})
    for _ in range(20):
        queue.add_request(FakeRequest(100, "back from idling"))
    served = []
    for _ in range(10):
        request = queue.pop_request()
        served.append(request.tenant)
        request.num_computed_tokens = 1000
        desk.charge({request.request_id: 1000})
    assert served.count("back from idling") == 5


def test_who_comes_to_an_empty_queue_is_level_with_the_last_who_left_it() -> None:
    ledger = Ledger({})
    ledger.arrive("a")
    ledger.charge("a", 70)
    ledger.leave("a")
    ledger.arrive("b")
    assert ledger.served("b") == 70


def test_a_request_that_was_skipped_does_not_lift_its_tenant() -> None:
    desk = make_desk(policy="fair")
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    behind, ahead = FakeRequest(tenant="behind"), FakeRequest(tenant="ahead")
    queue.add_request(behind)
    queue.add_request(ahead)
    desk.ledgers[0].charge("ahead", 100)
    queue.prepend_requests(deque([queue.pop_request()]))
    assert desk.ledgers[0].served("behind") == 0
    assert queue.peek_request() is behind


def test_each_position_is_charged_once() -> None:
    desk = make_desk(policy="fair", input_weight=1, output_weight=2)
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    request = FakeRequest(tenant="a", num_prompt_tokens=10, max_tokens=10)
    queue.add_request(request)
    queue.pop_request()

    def compute(upto: int, tokens: int) -> float:
        request.num_computed_tokens = upto
        desk.charge({request.request_id: tokens})
        return desk.ledgers[0].served("a")

    assert compute(upto=8, tokens=4) == 4  # the first 4 came from the prefix cache
    assert compute(upto=11, tokens=3) == 4 + 2 + 2
    request.num_preemptions = 1
    queue.prepend_request(request)
    queue.pop_request()
    assert compute(upto=11, tokens=11) == 8  # computed again after a preemption
    assert compute(upto=13, tokens=2) == 12


def test_with_one_tenant_there_is_nothing_to_charge() -> None:
    desk = make_desk()
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    first, second = FakeRequest(tenant="a"), FakeRequest(tenant="a")
    queue.add_request(first)
    queue.add_request(second)
    assert not desk.contended
    other = FakeRequest(tenant="b")
    queue.add_request(other)
    assert desk.contended
    queue.remove_request(other)
    desk.finished(other.request_id)
    assert not desk.contended


def test_among_equals_the_longest_cached_prefix_is_first() -> None:
    cached: dict[str, int] = {}
    desk = make_desk(policy="fair", cached=cached, locality={"slack_tokens": 100, "window": 4})
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    requests = [FakeRequest(tenant=tenant) for tenant in "abba"]
    for request in requests:
        queue.add_request(request)
    cached[requests[2].request_id] = 64
    assert queue.pop_request() is requests[2]
    desk.ledgers[0].charge("b", 101)  # beyond the slack: b's cached prefixes no longer count
    cached[requests[1].request_id] = 64
    assert queue.pop_request() is requests[0]


class Local:
    """A queue of one tenant in which the cached prefix counts."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cached: dict[str, int] = {}
        section = {"policy": "fair", "aging_seconds": 30, "locality": {"slack_tokens": 1000, "window": 8}}
        self.desk = make_desk(self.clock, self.cached, **section)
        self.queue: WaitingQueue[FakeRequest] = WaitingQueue(self.desk)

    def add(self, urgency: int, *, cached: int) -> FakeRequest:
        request = FakeRequest(urgency)
        self.cached[request.request_id] = cached
        self.queue.add_request(request)
        return request


def test_the_cache_lets_nobody_pass_who_is_more_urgent() -> None:
    local = Local()
    urgent, hot = local.add(1000, cached=0), local.add(101, cached=64)
    assert [local.queue.pop_request(), local.queue.pop_request()] == [urgent, hot]


def test_the_cache_lets_nobody_pass_who_was_preempted() -> None:
    local = Local()
    victim = local.add(0, cached=0)
    assert local.queue.pop_request() is victim
    hot = local.add(0, cached=64)
    victim.num_preemptions = 1
    local.queue.prepend_request(victim)
    assert [local.queue.pop_request(), local.queue.pop_request()] == [victim, hot]


def test_the_cache_lets_pass_for_the_aging_time_only() -> None:
    local = Local()
    cold = local.add(0, cached=0)
    for _ in range(29):
        hot = local.add(0, cached=64)
        local.clock.now += 1
        local.desk.step += 1
        assert local.queue.pop_request() is hot
    local.add(0, cached=64)
    local.clock.now += 1
    local.desk.step += 1
    assert local.queue.pop_request() is cold


def test_without_slack_the_cache_does_not_count() -> None:
    cached: dict[str, int] = {}
    queue: WaitingQueue[FakeRequest] = WaitingQueue(make_desk(policy="fair", cached=cached))
    first, second = FakeRequest(tenant="a"), FakeRequest(tenant="b")
    queue.add_request(first)
    queue.add_request(second)
    cached[second.request_id] = 64
    assert queue.peek_request() is first
