"""The server orders waiting requests by X-Vlinders-Priority, larger first; equals by arrival."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from server import LORA_NAME, SLOTS, Server
from traffic import Call, full_batch, order_of_service

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


QUEUED = [Call(f"normal {n}") for n in range(30)] + [Call(f"low {n}", header=9) for n in range(20)]


@pytest.mark.parametrize(
    "urgent",
    [
        pytest.param(Call("urgent", header=100), id="header"),
        pytest.param(Call("urgent", body=100, path=CHAT), id="body"),
        pytest.param(Call("urgent", header=100, model=LORA_NAME, stream=True), id="lora"),
    ],
)
def test_an_urgent_request_overtakes_fifty_that_wait(patched: Server, urgent: Call) -> None:
    order = order_of_service(patched, SLOTS, [urgent], after=QUEUED)

    assert order[0] == "urgent"
    assert set(order[1:21]) == {call.name for call in QUEUED if call.header}
    assert len(order) == 1 + len(QUEUED)


def test_order_is_priority_then_arrival_however_the_priority_is_given(patched: Server) -> None:
    calls = [
        Call("normal, first"),
        Call("body 5", body=5),
        Call("header 0", header=0),
        Call("header 90", header=90, path=CHAT),
        Call("body 90, after the header 90", body=90),
        Call("header 1 outranks body 900", header=1, body=900),
        Call("responses, header 95", header=95, path="/v1/responses"),
        Call("responses, body 96", body=96, path="/v1/responses"),
        Call("header 999 outranks body 0", header=999, body=0, path=CHAT, stream=True),
        Call("lora, body 5, after the body 5", body=5, model=LORA_NAME),
        Call("invocations, header 4", header=4, path="/invocations"),
        Call("header 90 again", header=90, stream=True),
        Call("body 1000", body=1000),
        Call("normal, last"),
    ]

    assert order_of_service(patched, SLOTS, calls) == [
        "body 1000",
        "header 999 outranks body 0",
        "responses, body 96",
        "responses, header 95",
        "header 90",
        "body 90, after the header 90",
        "header 90 again",
        "body 5",
        "lora, body 5, after the body 5",
        "invocations, header 4",
        "header 1 outranks body 900",
        "normal, first",
        "header 0",
        "normal, last",
    ]


def test_requests_of_clients_that_left_leave_the_queue(patched: Server) -> None:
    async def run() -> None:
        async with full_batch(patched, SLOTS) as queue:
            await queue.line_up([Call(f"left {n}", header=n % 3, stream=n % 2 == 0) for n in range(20)])
            await queue.disconnect_all()
            await queue.until(running=0, waiting=0)

    asyncio.run(run())
    with patched.client() as client:
        answer = client.post("/v1/completions", json=Call("after").json())
    assert answer.status_code == httpx.codes.OK
    assert answer.json()["usage"]["completion_tokens"] == 6
