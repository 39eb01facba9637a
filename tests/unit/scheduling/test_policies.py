"""The policies' promises beyond the order of one moment: no starvation, learning, turns, errors."""

from __future__ import annotations

import pytest
from fakes import FakeClock, FakeRequest, make_desk
from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.scheduling.bands import BANDS, band_of, level, since
from vllm_vlinders.scheduling.policies import POLICIES, policy_class
from vllm_vlinders.scheduling.waiting_queue import WaitingQueue
from vllm_vlinders.settings import POLICY_NAMES

AGING = 10.0


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_levels_keep_the_order_of_priorities_and_the_bands(one: int, other: int) -> None:
    assert (level(one) < level(other)) == (one < other)
    band = BANDS[band_of(one)]
    assert band.lowest <= one <= band.highest
    assert band_of(one) == int(level(one))


@given(st.integers(-5000, 5000), st.integers(-5000, 5000))
def test_beyond_the_scale_the_larger_is_still_the_more_urgent(one: int, other: int) -> None:
    assert (level(one) < level(other)) == (one < other)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 1000))
def test_the_bound_of_waiting(old: int, new: int, later: float) -> None:
    """Who comes (5 - level) * aging_seconds later, or after that, does not overtake."""
    overtakes = since(later, new, AGING) < since(0.0, old, AGING)
    if later >= (5 - level(old)) * AGING:
        assert not overtakes


@pytest.mark.parametrize("policy", ["priority", "fair"])
def test_under_endless_urgent_load_the_normal_one_is_served_within_its_bound(policy: str) -> None:
    clock = FakeClock()
    queue: WaitingQueue[FakeRequest] = WaitingQueue(make_desk(clock, policy=policy, aging_seconds=AGING))
    normal = FakeRequest(0)
    queue.add_request(normal)
    begin = clock.now
    for _ in range(3):
        queue.add_request(FakeRequest(1000))
    while queue.pop_request() is not normal:
        clock.now += 1
        queue.add_request(FakeRequest(1000))
    bound = (5 - level(0)) * AGING
    assert clock.now - begin <= bound + 4  # and the four that were ahead by then, a second each


def test_a_long_queue_of_its_own_gains_a_tenant_nothing() -> None:
    clock = FakeClock()
    desk = make_desk(clock, policy="fair", aging_seconds=AGING)
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    for _ in range(20):
        queue.add_request(FakeRequest(tenant="big"))
    desk.ledgers[0].charge("big", 1000)
    clock.now += 100 * AGING
    small = FakeRequest(tenant="small")
    queue.add_request(small)
    desk.ledgers[0].charge("big", 1)
    assert queue.peek_request() is small


def test_a_displaced_request_has_not_aged_while_it_ran() -> None:
    clock = FakeClock()
    queue: WaitingQueue[FakeRequest] = WaitingQueue(make_desk(clock, policy="fair", aging_seconds=AGING))
    victim, urgent = FakeRequest(0), FakeRequest(60)
    queue.add_request(victim)
    queue.pop_request()
    clock.now += 100 * AGING
    victim.num_preemptions = 1
    queue.prepend_request(victim)
    queue.add_request(urgent)
    assert queue.peek_request() is urgent


def test_shortest_job_first_learns_how_much_a_tenant_generates() -> None:
    desk = make_desk(policy="sjf")
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    taught = FakeRequest(tenant="terse", max_tokens=1000)
    queue.add_request(taught)
    queue.pop_request()
    taught.num_output_tokens = 3
    desk.finished(taught.request_id)
    wordy = FakeRequest(tenant="wordy", max_tokens=500)
    terse = FakeRequest(tenant="terse", max_tokens=1000)
    queue.add_request(wordy)
    queue.add_request(terse)
    assert queue.peek_request() is terse


def test_shortest_job_first_does_not_starve_the_long_one() -> None:
    clock = FakeClock()
    queue: WaitingQueue[FakeRequest] = WaitingQueue(make_desk(clock, policy="sjf", aging_seconds=AGING))
    long = FakeRequest(num_prompt_tokens=4096, max_tokens=1)
    queue.add_request(long)
    clock.now += 4097 / 1024 * AGING + 1
    queue.add_request(FakeRequest(num_prompt_tokens=1, max_tokens=1))
    assert queue.peek_request() is long


def test_a_request_without_a_deadline_is_due_in_the_end() -> None:
    clock = FakeClock()
    queue: WaitingQueue[FakeRequest] = WaitingQueue(make_desk(clock, policy="deadline", aging_seconds=AGING))
    patient = FakeRequest()
    queue.add_request(patient)
    queue.add_request(FakeRequest(start_within=1))
    assert queue.pop_request() is not patient
    clock.now += 5 * AGING
    queue.add_request(FakeRequest(start_within=1))
    assert queue.pop_request() is patient


def test_round_robin_gives_every_tenant_its_turn() -> None:
    queue: WaitingQueue[FakeRequest] = WaitingQueue(make_desk(policy="round_robin"))
    for tenant in "aaaabbc":
        queue.add_request(FakeRequest(tenant=tenant))
    assert "".join(queue.pop_request().tenant for _ in range(7)) == "abcabaa"


def test_preempted_requests_resume_before_their_peers_but_not_before_higher_bands() -> None:
    desk = make_desk(policy="fair")
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    peer, victim, urgent = FakeRequest(), FakeRequest(), FakeRequest(60)
    queue.add_request(victim)
    queue.pop_request()
    queue.add_request(peer)
    queue.add_request(urgent)
    victim.num_preemptions = 1
    queue.prepend_request(victim)
    assert [queue.pop_request() for _ in range(3)] == [urgent, victim, peer]


def test_a_displaced_request_does_not_overtake_the_tenant_it_made_room_for() -> None:
    desk = make_desk(policy="fair")
    queue: WaitingQueue[FakeRequest] = WaitingQueue(desk)
    victim, small = FakeRequest(tenant="big"), FakeRequest(tenant="small")
    queue.add_request(victim)
    queue.pop_request()
    queue.add_request(small)
    desk.ledgers[0].charge("big", 1000)
    victim.num_preemptions = 1
    queue.prepend_request(victim)
    assert queue.peek_request() is small


def test_the_settings_know_all_policies() -> None:
    assert set(POLICY_NAMES) == set(POLICIES)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_module:Policy", "No module named"),
        ("json:Policy", "has no attribute"),
        ("json:JSONDecoder", "is not a subclass of vllm_vlinders.scheduling.policies.Policy"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named(name: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=r"^scheduler\.policy: ") as caught:
        policy_class(name)
    assert problem in str(caught.value)
    assert name in str(caught.value)
