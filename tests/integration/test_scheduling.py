"""Deadlines, limits of queues, tenants and preemption, through the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from server import SLOTS, Server
from traffic import Call, Queue, full_batch, order_of_service

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


def in_full_batch(server: Server, act: Callable[[Queue], Awaitable[Any]], priority: int = 1000) -> Any:
    """Return what `act` returns while all slots are taken."""

    async def run() -> Any:
        async with full_batch(server, SLOTS, priority=priority) as queue:
            return await act(queue)

    return asyncio.run(run())


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal, after checking its form."""
    assert answer.status_code in (429, 503), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "X-Vlinders-Request-Id" in answer.headers
    return answer.status_code, error["code"]


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(Call("late", deadline_ms=300), id="completions"),
        pytest.param(Call("late", deadline_ms=300, path=CHAT), id="chat"),
        pytest.param(Call("late", deadline_ms=300, path=CHAT, stream=True), id="stream"),
        pytest.param(Call("late", deadline_ms=300, n=3), id="n"),
        pytest.param(Call("late", deadline_ms=300, path="/v1/responses"), id="responses"),
        pytest.param(Call("late", header=10), id="default of the band"),
    ],
)
def test_what_cannot_start_before_its_deadline_is_answered_with_503(scheduled: Server, late: Call) -> None:
    answer = in_full_batch(scheduled, lambda queue: queue.answer(late))

    assert refusal(answer) == (503, "deadline_exceeded")


def test_what_starts_in_time_has_no_deadline_any_more(scheduled: Server) -> None:
    with scheduled.client() as client:
        call = Call("in time", deadline_ms=4000, tokens=400)
        answer = client.post(call.path, json=call.json(), headers=call.headers())

    assert answer.status_code == httpx.codes.OK
    assert answer.json()["usage"]["completion_tokens"] == 400


def test_a_tenant_with_a_full_queue_gets_429_and_no_other_does(scheduled: Server) -> None:
    async def act(queue: Queue) -> list[httpx.Response]:
        await queue.line_up([Call(f"limited {n}", tenant="limited") for n in range(3)])
        too_many = await queue.answer(Call("limited 4", tenant="limited", stream=True))
        await queue.line_up([Call("other", tenant="other"), Call("more urgent", header=95, tenant="limited")])
        assert sorted(await queue.finish()) == [
            "limited 0", "limited 1", "limited 2", "more urgent", "other",
        ]  # fmt: skip
        return [too_many]

    (answer,) = in_full_batch(scheduled, act)
    assert refusal(answer) == (429, "queue_full")


def test_small_tenants_do_not_wait_for_a_big_one(scheduled: Server) -> None:
    """Within a band tenants take turns by what they have been served."""
    calls = [Call(f"big {n}", tenant="big") for n in range(12)]
    calls += [Call(f"small {n}", tenant="small") for n in range(3)]

    order = order_of_service(scheduled, SLOTS, calls)

    assert order.index("small 2") < 9
    assert [name for name in order if name.startswith("big")] == [call.name for call in calls[:12]]


def test_a_tenants_default_and_cap_hold_for_header_and_body(scheduled: Server) -> None:
    """They put the request into the low band, whose deadline is so short that it shows."""
    calls = [
        Call("twenty by default", tenant="capped"),
        Call("capped header", header=900, tenant="capped"),
        Call("capped body", body=900, tenant="capped", path=CHAT),
    ]

    async def act(queue: Queue) -> list[tuple[int, str]]:
        return [refusal(answer) for answer in await asyncio.gather(*map(queue.answer, calls))]

    assert in_full_batch(scheduled, act) == [(503, "deadline_exceeded")] * 3


def test_an_urgent_request_displaces_a_running_one_which_ends_complete(scheduled: Server) -> None:
    long = Call("long", tokens=400)

    async def act(queue: Queue) -> httpx.Response:
        displaced = [asyncio.create_task(queue.answer(long)) for _ in range(SLOTS)]
        await queue.until(running=SLOTS)
        urgent = await queue.answer(Call("urgent", header=900))
        assert not any(task.done() for task in displaced)
        ends = await asyncio.gather(*displaced)
        alone = await queue.answer(long)
        assert {end.json()["choices"][0]["text"] for end in ends} == {alone.json()["choices"][0]["text"]}
        return urgent

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(base_url=scheduled.url, timeout=None) as client:
            return await act(Queue(scheduled, client, SLOTS))

    assert asyncio.run(run()).status_code == httpx.codes.OK
    with scheduled.client() as client:
        processes = client.get("/vlinders/status").json()["processes"]
    (facts,) = [p["facts"]["scheduling"] for p in processes if p["role"] == "engine_core"]
    assert facts["policy"] == "fair"
    assert facts["preemptions_slots"] >= 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X-Vlinders-Deadline-Ms": "soon"}, "invalid_deadline"),
        ({"X-Vlinders-Deadline-Ms": "0"}, "invalid_deadline"),
        ({"X-Vlinders-Tenant": "a;b"}, "invalid_tenant"),
    ],
)
def test_bad_values_are_refused(scheduled: Server, headers: dict[str, str], code: str) -> None:
    with scheduled.client() as client:
        answer = client.post("/v1/completions", json=Call("x").json(), headers=headers)

    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.json()["error"]["code"] == code


def test_without_trust_the_tenant_header_means_nothing(patched: Server) -> None:
    with patched.client() as client:
        answer = client.post("/v1/completions", json=Call("x").json(), headers={"X-Vlinders-Tenant": "a;b"})

    assert answer.status_code == httpx.codes.OK
