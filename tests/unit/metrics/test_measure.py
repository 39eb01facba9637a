"""What the pipeline counts of a request, however it ends."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from vllm_vlinders.errors import RequestError
from vllm_vlinders.metrics.labels import OTHER
from vllm_vlinders.serving import door, refusals
from vllm_vlinders.serving.exchange import ASGIApp, Message, current_exchange
from vllm_vlinders.serving.measure import recorder, serve_model, tell_late
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.settings import active_settings

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"x", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("VLINDERS_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("VLINDERS_SCHEDULER__TRUST_TENANT_HEADER", "true")
    monkeypatch.setenv("VLINDERS_METRICS__MAX_TENANTS", "3")
    monkeypatch.setenv(
        "VLINDERS_SESSIONS__KEYS", "[header:X-Session-Id]"
    )  # leave the body to the application
    monkeypatch.setenv("VLINDERS_QUOTAS__PRICES", "{m: {input: 2, output: 10}}")
    serve_model("m")
    active_settings.cache_clear()
    recorder.cache_clear()
    yield
    recorder.cache_clear()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def exposed() -> Samples:
    """Return what our metrics show, by name and labels."""
    families = text_string_to_metric_families(generate_latest(REGISTRY).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("vlinders_") and not sample.name.endswith("_created")
    }


def call(
    app: ASGIApp, tenant: str = "a", *, method: str = "POST", leave: bool = False, priority: str = "0"
) -> list[Message]:
    sent: list[Message] = []
    headers = [(b"x-vlinders-tenant", tenant.encode()), (b"x-vlinders-priority", priority.encode())]
    scope = {"type": "http", "method": method, "path": "/v1/completions", "headers": headers}

    async def receive() -> Message:
        return {"type": "http.disconnect"} if leave else {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        asyncio.run(Pipeline(app)(scope, receive, send))
    except ZeroDivisionError:
        sent.append({"type": "error"})
    return sent


def change(before: Samples, name: str, **labels: str) -> float:
    key = (name, frozenset(labels.items()))
    return exposed().get(key, 0) - before.get(key, 0)


def requests_since(before: Samples, status: str, band: str = "normal", model: str = "none") -> float:
    labels = {"tenant": "a", "model": model, "band": band, "route": "none", "status": status}
    return change(before, "vlinders_requests_total", **labels)


def tokens_since(before: Samples, kind: str) -> float:
    return change(before, "vlinders_tokens_total", tenant="a", model="m", kind=kind)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    for message in (START, PART, END):
        await send(dict(message))


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    raise RequestError("no", status=429, code="no")


async def deny_a_socket(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def fail(scope: Any, receive: Any, send: Any) -> None:
    raise ZeroDivisionError


async def be_left(scope: Any, receive: Any, send: Any) -> None:
    await send(dict(START))
    assert (await receive())["type"] == "http.disconnect"


async def be_left_and_answer(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "http.disconnect"
    await answer(scope, receive, send)


async def be_left_after_the_answer(scope: Any, receive: Any, send: Any) -> None:
    await answer(scope, receive, send)
    assert (await receive())["type"] == "http.disconnect"


@pytest.mark.parametrize(
    ("app", "leave", "status"),
    [
        (answer, False, "200"),
        (refuse, False, "429"),
        (deny_a_socket, False, "401"),
        (fail, False, "500"),
        (be_left, True, "499"),
        (be_left_and_answer, True, "499"),
        (be_left_after_the_answer, True, "200"),
    ],
)
def test_a_request_counts_once_by_how_it_ended(app: ASGIApp, leave: bool, status: str) -> None:
    before = exposed()

    call(app, leave=leave)

    assert requests_since(before, status) == 1
    assert change(before, "vlinders_response_seconds_count", tenant="a", band="normal") == 1
    assert exposed()["vlinders_active_requests", frozenset()] == 0


def test_what_is_refused_by_a_stage_counts() -> None:
    before = exposed()

    call(answer, priority="many")

    assert requests_since(before, "400") == 1


def test_what_cannot_make_the_model_work_does_not_count() -> None:
    before = exposed()

    call(answer, method="GET")

    assert exposed() == before


def generating(prompt: int, output: int, *, late: int = 0) -> ASGIApp:
    """Return an application whose request gets `output` tokens, and `late` ones after its answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        door.enter("r", prompt=prompt, answers=1, max_tokens=99, adapter=None, priority=60)
        exchange = current_exchange.get()
        assert exchange is not None
        exchange.meter.output += output
        exchange.meter.cached += 1
        for _ in range(output - 1):
            exchange.meter.waited_for_output(0.5)
        await answer(scope, receive, send)
        kept.append(exchange)

    return app


kept: list[Any] = []


def test_tokens_cost_and_times_are_those_of_the_meter() -> None:
    before = exposed()

    call(generating(100, 5))

    assert [tokens_since(before, kind) for kind in ("prompt", "cached", "completion")] == [100, 1, 5]
    cost = change(before, "vlinders_cost_total", tenant="a", model="m")
    assert cost == pytest.approx((100 * 2 + 5 * 10) / 1e6)
    assert requests_since(before, "200", "medium", "m") == 1
    place = {"tenant": "a", "band": "medium"}
    assert change(before, "vlinders_inter_token_seconds_count", **place) == 4
    assert change(before, "vlinders_inter_token_seconds_sum", **place) == pytest.approx(2)


def test_what_comes_after_the_answer_counts_too_and_once() -> None:
    before = exposed()
    call(generating(100, 5))
    exchange = kept.pop()

    exchange.meter.output += 7
    tell_late(exchange)
    exchange.meter.output += 1
    tell_late(exchange)

    assert tokens_since(before, "completion") == 13
    assert tokens_since(before, "prompt") == 100


def test_tenants_beyond_the_most_are_others_and_take_no_memory() -> None:
    """50,000 requests, each of a tenant that was never seen."""
    app = generating(3, 2)

    async def run(begin: int, end: int) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        async def send(message: Message) -> None:
            pass

        pipeline = Pipeline(app)
        for number in range(begin, end):
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/v1/completions",
                "headers": [(b"x-vlinders-tenant", b"t%d" % number), (b"x-session-id", b"s%d" % number)],
            }
            await pipeline(scope, receive, send)
            kept.clear()

    asyncio.run(run(0, 1000))
    tracemalloc.start()
    try:
        asyncio.run(run(1000, 2000))
        first, _ = tracemalloc.get_traced_memory()
        asyncio.run(run(2000, 4000))
        second, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    asyncio.run(run(4000, 50_000))

    tenants = {dict(labels)["tenant"] for name, labels in exposed() if name == "vlinders_requests_total"}
    assert OTHER in tenants
    assert second - first < 20_000, "20 bytes each of 2,000 requests would show"
    assert len([tenant for tenant in tenants if tenant.startswith("t")]) <= 3


def test_what_is_turned_away_after_its_answer_has_ended_stays_counted() -> None:
    """As a background response may be, which waits for longer than its request."""
    before = exposed()
    call(generating(200, 0))
    exchange = kept[-1]
    refusals.refuse("r", RequestError("no", status=503, code="deadline_exceeded"))
    tell_late(exchange)

    assert tokens_since(before, "prompt") == 200
