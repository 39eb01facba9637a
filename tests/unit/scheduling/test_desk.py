"""Deadlines, limits of queues, victims, and what crosses to the engine core."""

from __future__ import annotations

import pytest
from fakes import FakeClock, FakeRequest, make_desk
from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.errors import RequestError
from vllm_vlinders.scheduling.preemption import Candidate, Preemption
from vllm_vlinders.scheduling.refusal import as_error, stop_reason
from vllm_vlinders.scheduling.tags import Tags, decode, encode, parse_deadline, parse_tenant
from vllm_vlinders.scheduling.ticket import Ticket
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue
from vllm_vlinders.settings import PreemptionSettings

Queue = WaitingQueue[FakeRequest]


def test_deadlines_that_pass_are_refused_once() -> None:
    clock = FakeClock()
    desk = make_desk(clock)
    queue: Queue = WaitingQueue(desk)
    soon, late, never = FakeRequest(start_within=1), FakeRequest(start_within=9), FakeRequest()
    for request in (never, late, soon):
        queue.add_request(request)
    assert desk.too_late() == []
    clock.now += 2
    assert [ticket.request for ticket in desk.too_late()] == [soon]
    assert desk.too_late() == []


def test_what_has_started_or_left_has_no_deadline_any_more() -> None:
    clock = FakeClock()
    desk = make_desk(clock)
    queue: Queue = WaitingQueue(desk)
    started, left = FakeRequest(start_within=1), FakeRequest(start_within=1)
    queue.add_request(started)
    queue.add_request(left)
    assert queue.pop_request() is started
    desk.started(started.request_id)
    queue.remove_request(left)
    desk.finished(left.request_id)
    clock.now += 5
    assert desk.too_late() == []


def test_a_queue_limit_is_per_tenant_and_band() -> None:
    desk = make_desk(max_queue=2, tenants={"big": {"max_queue": 3}})
    queue: Queue = WaitingQueue(desk)
    refused = []
    for tenant, urgency in [("a", 0)] * 3 + [("a", 60)] * 2 + [("b", 0)] + [("big", 0)] * 4:
        queue.add_request(FakeRequest(urgency, tenant))
        for ticket in desk.too_many():
            refused.append(ticket.tenant)
            queue.remove_request(ticket.request)
    assert refused == ["a", "big"]


def test_of_a_burst_only_those_are_too_many_that_wait_after_the_step() -> None:
    desk = make_desk(max_queue=2)
    queue: Queue = WaitingQueue(desk)
    burst = [FakeRequest() for _ in range(6)]
    for request in burst:
        queue.add_request(request)
    for request in burst[:3]:
        assert queue.pop_request() is request
    assert [ticket.request for ticket in desk.too_many()] == [burst[5]]


def test_a_full_queue_has_room_again_once_a_request_starts() -> None:
    desk = make_desk(max_queue=1)
    queue: Queue = WaitingQueue(desk)
    queue.add_request(FakeRequest())
    queue.pop_request()
    queue.add_request(FakeRequest())
    assert desk.too_many() == []


def test_an_abort_after_the_limit_was_hit_is_not_refused() -> None:
    desk = make_desk(max_queue=1)
    queue: Queue = WaitingQueue(desk)
    queue.add_request(FakeRequest())
    gone = FakeRequest()
    queue.add_request(gone)
    queue.remove_request(gone)
    assert desk.too_many() == []


def test_a_request_that_changes_queues_keeps_its_place() -> None:
    desk = make_desk()
    waiting: Queue = WaitingQueue(desk)
    skipped: Queue = WaitingQueue(desk)
    first, second = FakeRequest(), FakeRequest()
    waiting.add_request(first)
    waiting.add_request(second)
    waiting.remove_request(first)
    skipped.add_request(first)
    assert skipped.outranks(waiting)


def test_an_id_that_is_used_again_belongs_to_the_new_request() -> None:
    desk = make_desk()
    queue: Queue = WaitingQueue(desk)
    old = FakeRequest(tenant="a")
    queue.add_request(old)
    queue.pop_request()
    new = FakeRequest(tenant="b", request_id=old.request_id)
    queue.add_request(new)
    assert queue.pop_request() is new
    assert desk.tickets[new.request_id].tenant == "b"
    assert not desk.contended


def test_the_next_input_of_a_session_is_a_new_arrival() -> None:
    clock = FakeClock()
    queue: Queue = WaitingQueue(make_desk(clock))
    session, other = FakeRequest(resumable=True), FakeRequest()
    queue.add_request(session)
    queue.pop_request()
    clock.now += 1
    queue.add_request(other)
    clock.now += 1
    queue.add_request(session)
    assert [queue.pop_request(), queue.pop_request()] == [other, session]


def running(priority: int, recomputation: int = 0, tenant: str = "t") -> Candidate:
    return Candidate(Ticket(None, tenant, priority, 0.0, 0.0, 1, 1), recomputation)


def preemption_with(**section: float) -> Preemption:
    return Preemption(PreemptionSettings.model_validate(section), weight)


def weight(tenant: str) -> float:
    return {"big": 3.0}.get(tenant, 1.0)


def anybody(_: Ticket) -> bool:
    return True


def test_the_cheapest_victim_is_of_the_lowest_band_then_of_the_least_recomputation() -> None:
    costly, cheap, higher = running(0, 500), running(0, 20), running(40, 1)
    assert preemption_with().choose([costly, cheap, higher], anybody, now=0) is cheap.ticket


def test_the_gap_the_rate_and_the_cool_down_are_kept() -> None:
    preemption = preemption_with(min_gap=50, max_per_second=2, cooldown_seconds=10)
    urgent = running(100).ticket
    assert not preemption.urgent(urgent, running(51).ticket)
    assert preemption.urgent(urgent, running(50).ticket)
    one, other = running(0), running(10)
    assert preemption.choose([one, other], anybody, now=0.0) is one.ticket
    assert preemption.choose([one, other], anybody, now=0.5) is other.ticket
    assert not preemption.may(0.9)
    assert preemption.may(1.0)
    assert preemption.choose([one, other], anybody, now=9.9) is None
    assert preemption.choose([one, other], anybody, now=10.0) is one.ticket
    assert not preemption_with(enabled=False).may(0)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.integers(1, 5))
def test_never_more_preemptions_in_any_second_than_allowed(gaps: list[float], limit: int) -> None:
    preemption = preemption_with(max_per_second=limit, cooldown_seconds=0)
    now, done = 0.0, []
    for gap in gaps:
        now += gap
        if preemption.may(now) and preemption.choose([running(0)], anybody, now):
            done.append(now)
    assert all(sum(begin <= moment < begin + 1 for moment in done) <= limit for begin in done)


@pytest.mark.parametrize(
    ("running_tenants", "debtors"),
    [
        ("aaaaaaaa", {"a"}),  # two tenants, four slots each
        ("aaaaabbb", {"a"}),
        ("aaaabbbb", set()),  # b has its share
        ("aaccccccc", {"c"}),
        ("cdefghij", set()),  # none runs more than its share
    ],
)
def test_a_slot_is_owed_by_those_above_their_share(running_tenants: str, debtors: set[str]) -> None:
    tickets = [running(0, tenant=tenant).ticket for tenant in running_tenants]
    waiting = running(0, tenant="b").ticket
    assert preemption_with().over_share(waiting, tickets, slots=8) == debtors


def test_shares_follow_the_weights() -> None:
    preemption = preemption_with()
    tickets = [running(0, tenant=tenant).ticket for tenant in ["big"] * 6 + ["b"] * 2]
    assert preemption.over_share(running(0, tenant="b").ticket, tickets, slots=8) == set()
    assert preemption.over_share(running(0, tenant="big").ticket, tickets, slots=8) == set()
    tickets = [running(0, tenant=tenant).ticket for tenant in ["big"] * 5 + ["b"] * 3]
    assert preemption.over_share(running(0, tenant="big").ticket, tickets, slots=8) == {"b"}


def test_tags_cross_and_leave_the_headers_as_they_were() -> None:
    headers = {"traceparent": "00-1-2-03"}
    tags = Tags("acme", 2.5)
    assert decode(encode(tags, headers)) == (tags, headers)
    assert decode(encode(Tags(), None)) == (Tags(), None)
    assert decode(headers) == (Tags(), headers)
    assert decode(None) == (Tags(), None)


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "abc", "86400001", "9" * 5000, "\u0661"])
def test_a_deadline_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="a whole number of milliseconds from 1 to 86400000"):
        parse_deadline(text)


@pytest.mark.parametrize("text", ["", "a b", "a;b", "-a", "x" * 65, "ü"])
def test_a_tenant_that_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="1 to 64 of the letters"):
        parse_tenant(text)


@given(st.sampled_from(["deadline", "queue_full"]), st.floats(0, 1e6))
def test_a_refusal_tells_when_to_try_again(reason: str, wait: float) -> None:
    error = as_error(stop_reason(reason, wait))  # type: ignore[arg-type]
    assert error is not None
    assert error.status == {"deadline": 503, "queue_full": 429}[reason]
    assert 1 <= int(error.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    "text", [None, 3, "stop", "vlinders", "vlinders:x", "vlinders:other:5", "a:deadline:5"]
)
def test_the_stop_reasons_of_others_are_no_refusals(text: object) -> None:
    assert as_error(text) is None
