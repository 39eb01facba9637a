"""Which replica is next, when one is left alone, and what an answer has used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from elsewhere import Elsewhere
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_vlinders.metrics.engine_load import KV, RUNNING, WAITING, load_of
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.routing.breaker import Breaker
from vllm_vlinders.routing.memory import SessionMemory, share_of
from vllm_vlinders.routing.upstreams import Upstream
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.upstreams.forward import Call, settle
from vllm_vlinders.serving.upstreams.pool import read_load
from vllm_vlinders.serving.upstreams.usage import UsageHider, UsageReader
from vllm_vlinders.settings import UpstreamSettings


def upstream(number: int = 3, **more: Any) -> Upstream:
    urls = tuple(f"http://replica-{n}" for n in range(number))
    return Upstream("m", UpstreamSettings(urls=urls, **more), urls, None, lambda: 0.0)


def test_a_breaker_opens_tries_and_rests_longer_each_time() -> None:
    breaker = Breaker(failures=2, rest=10)
    breaker.fail(0)
    assert breaker.ready(0)
    breaker.fail(0)
    for opened, rest in ((0, 10), (100, 20), (200, 40)):
        assert not breaker.ready(opened + rest - 1)
        assert breaker.ready(opened + rest)
        breaker.start()
        assert not breaker.ready(opened + rest)  # one tries, the others wait for what it finds
        breaker.abandon()
        assert breaker.ready(opened + rest)
        breaker.start()
        breaker.fail(opened + 100)
    breaker.start()
    breaker.succeed()
    breaker.fail(1000)
    assert breaker.ready(1000)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=3, max_size=3), st.none() | st.text(max_size=5))
def test_every_replica_is_asked_once_at_most_and_none_that_rests(
    busy: list[int], session: str | None
) -> None:
    of = upstream()
    for replica, number in zip(of.replicas, busy, strict=True):
        replica.in_flight = number
    of.replicas[1].up = False
    asked = list(of.choices(session))
    assert {replica.number for replica in asked} == {1, 3}
    assert len(asked) == 2
    if session is None:
        assert asked[0].in_flight == min(busy[0], busy[2])


@settings(deadline=None)
@given(st.text(max_size=8))
def test_a_lost_replica_moves_its_sessions_only(session: str) -> None:
    of = upstream(5)
    first = next(of.choices(session))
    for lost in of.replicas:
        lost.up = False
        assert (next(of.choices(session)) is first) == (lost is not first)
        lost.up = True


@pytest.mark.parametrize(
    ("lines", "prompt", "output"),
    [
        (b'data: {"choices":[{}]}\n\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n', 3, 4),
        (
            b'data: {"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4}}}\n',
            3,
            4,
        ),
        (
            b'data: {"message":{"usage":{"input_tokens":3,"output_tokens":0}}}\ndata: {"usage":{"output_tokens":4}}\n',
            3,
            4,
        ),
        (b'data: {"usage":null}\n\ndata: {"usage":{"prompt_tokens":"x"}}\ndata: {"usage\n\n', None, None),
    ],
)
def test_usage_is_read_wherever_a_stream_is_cut(lines: bytes, prompt: int | None, output: int | None) -> None:
    for cut in range(len(lines)):
        reader = UsageReader()
        reader.feed(lines[:cut])
        reader.feed(lines[cut:])
        assert (reader.prompt, reader.output) == (prompt, output)


BEGINNING = b'data: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":%d}}}\n\n'
DELTA = b'data: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'
END = b'data: {"type":"message_delta","usage":{"output_tokens":4}}\n\ndata: {"type":"message_stop"}\n\n'


@pytest.mark.parametrize(
    ("stream", "used"),
    [
        (BEGINNING % 0 + DELTA * 9, 10),  # the client has left before the end
        (BEGINNING % 50 + DELTA * 9, 50),
        (BEGINNING % 1 + DELTA * 9 + END, 4),
        (b'data: {"choices":[{}]}\n\n' * 9, 9),
        (b'data: {"choices":[{}],"usage":{"completion_tokens":20}}\n\n' * 9, 20),
    ],
)
def test_the_beginning_of_an_answer_does_not_say_how_long_it_is(stream: bytes, used: int) -> None:
    reader = UsageReader()
    reader.feed(stream)
    assert reader.used == used


@pytest.mark.parametrize(
    ("usage", "prompt", "cached"),
    [
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 6}}, 9, 6),
        ({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 6}}, 9, 6),
        ({"input_tokens": 2, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 1}, 9, 6),
        ({"prompt_tokens": 9, "cache_read_input_tokens": 6}, 9, 6),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}, 5, 5),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, 9, 0),
        ({"input_tokens": 9, "cache_read_input_tokens": "x", "input_tokens_details": [6]}, 9, 0),
    ],
)
def test_what_a_prefix_cache_held_is_read(usage: dict[str, Any], prompt: int, cached: int) -> None:
    reader = UsageReader()
    reader.read_whole(json.dumps({"usage": usage}).encode())
    exchange = Exchange({}, RequestContext("1"), Elsewhere.health)  # type: ignore[arg-type]
    settle(Call(exchange, {}, None, 1, 0), reader)
    assert (exchange.meter.prompt, exchange.meter.cached) == (prompt, cached)


EVENTS = [
    b'data: {"choices":[{"text":"a"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\n',
    b": hello\n\n",
    b'data: {"choices":[],"usage":null}\r\n\r\n',
    b'data: {"choices":[{}],"usage":{"prompt_tokens":3}}\n\n',
    b"data: [DONE]\n\n",
    b"data: {",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=8), st.lists(st.integers(1, 40), max_size=20))
def test_only_the_event_that_tells_the_usage_is_hidden(events: list[bytes], cuts: list[int]) -> None:
    events = [event for event in events if event.endswith(b"\n")] + [e for e in events if e == EVENTS[-1]][:1]
    stream, hider, passed = b"".join(events), UsageHider(), b""
    for cut in cuts:
        passed, stream = passed + hider.feed(stream[:cut]), stream[cut:]
    passed += hider.feed(stream) + hider.rest()
    assert passed == b"".join(event for event in events if event != EVENTS[1])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20) | st.sampled_from([b'data: {"usage":', b"\n", b"{}", b"[DONE]"])))
def test_no_stream_is_too_odd_to_read(parts: list[bytes]) -> None:
    reader = UsageReader()
    for part in parts:
        reader.feed(part)
    reader.read_whole(b"".join(parts))
    assert reader.parts >= 0


def test_load_is_read_from_the_metrics_of_a_vllm() -> None:
    text = f"""# HELP x y
{WAITING}{{engine="0",model_name="m"}} 2.0
{RUNNING}{{engine="0",model_name="m"}} 4.0
{KV}{{engine="0",model_name="m"}} 0.25
http_requests_total 3
"""
    assert read_load(text) == pytest.approx((0.25 + 0.5) / 2)
    assert read_load("llamacpp:requests 3\n") is None
    assert load_of([(WAITING, 9.0), (RUNNING, 0.0), (KV, 1.0)]) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=6), st.sampled_from("abc")), max_size=30))
def test_the_memory_never_tells_of_a_session_what_it_was_not_told(
    tmp_path_factory: pytest.TempPathFactory, notes: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("memory") / "routes"
    one, other = SessionMemory(path, "abc"), SessionMemory(path, "abc")
    told: dict[tuple[str, str], str] = {}
    for tenant, session, model in notes:
        one.put(tenant, session, model)
        told[tenant, session] = model
    for (tenant, session), model in told.items():
        assert other.get(tenant, session) in (model, None)
        assert 0 <= share_of(tenant, session) < 1
    assert other.get("a tenant of its own", "x") is None
