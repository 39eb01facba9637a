"""Requests that are answered elsewhere, between real servers: a client, the pipeline, and upstreams."""

from __future__ import annotations

import json
import time

import pytest
from elsewhere import Elsewhere, wait_for
from gateway import BODY, CHAT, QUICK, SELDOM, Make, count, forget_health, nowhere

from vllm_vlinders.settings import active_settings


def test_an_answer_is_passed_back_and_no_credential_goes_on(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere()
    at = gateway(there.url, upstream={"model": "there"})
    got = at.ask(
        {**BODY, "tools": [{"x": 1}]}, Authorization="Bearer mine", Cookie="c=1", **{"X-API-Key": "mine"}
    )
    assert got.json() == {
        "model": "there",
        "choices": [{"text": "é"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    assert got.headers["X-Vlinders-Model"] == "big"
    assert "set-cookie" not in got.headers
    headers, body = there.seen[0]
    assert body == {**BODY, "tools": [{"x": 1}], "model": "there"}
    assert headers["authorization"] == "Bearer the key of the upstream"
    assert "mine" not in str(headers)
    assert "cookie" not in headers


@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_is_passed_on_byte_for_byte(asks: bool, elsewhere: Make, gateway: Make) -> None:
    there = elsewhere()
    at = gateway(there.url)
    body = {**BODY, "stream": True, **({"stream_options": {"include_usage": True}} if asks else {})}
    usage = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
    whole = b"".join(Elsewhere.STREAM)
    with at.client.stream("POST", CHAT, json=body) as got:
        assert b"".join(got.iter_raw()) == (whole if asks else whole.replace(usage, b""))
        assert got.headers["content-type"].startswith("text/event-stream")
    assert there.seen[0][1]["stream_options"] == {"include_usage": True}


def test_a_client_that_leaves_ends_the_stream_there(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere("endless")
    at = gateway(there.url)
    with at.client.stream("POST", CHAT, json={**BODY, "stream": True}) as got:
        next(got.iter_raw())
    wait_for(lambda: there.left == 1, "the upstream does not hear of it")
    wait_for(lambda: at.upstream().replicas[0].in_flight == 0, "the request is still counted")


def test_a_client_that_does_not_read_holds_the_upstream_back(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere("endless")
    at = gateway(there.url)
    with at.client.stream("POST", CHAT, json={**BODY, "stream": True}) as got:
        parts = got.iter_raw()
        next(parts)
        before, still = -1, 0
        while still < 20:  # nothing more comes from there for a while
            still = still + 1 if there.sent == before else 0
            before = there.sent
            time.sleep(0.02)
        assert there.sent < 2000  # of 64 KiB each: what buffers hold, not what it could send
        for _ in range(200):
            next(parts)
        wait_for(lambda: there.sent > before, "it does not go on")


@pytest.mark.parametrize("broken", ["nowhere", "drop", "break", 503, 429, 401, 404])
def test_the_next_replica_answers_where_nothing_was_sent(
    broken: str | int, elsewhere: Make, gateway: Make
) -> None:
    first = nowhere() if broken == "nowhere" else elsewhere(broken).url
    at = gateway(first, elsewhere().url, upstream=SELDOM)
    forget_health(at)
    before = count(model="big", replica="1", outcome="failed")
    for _ in range(4):
        got = at.ask()
        assert (got.status_code, got.json()["model"]) == (200, "big")
        wait_for(
            lambda: all(replica.breaker.ready(time.monotonic()) for replica in at.upstream().replicas), ""
        )
    assert count(model="big", replica="1", outcome="failed") > before


def test_a_stream_that_breaks_off_says_so_and_is_not_sent_again(elsewhere: Make, gateway: Make) -> None:
    first, second = elsewhere("break"), elsewhere("break")
    at = gateway(first.url, second.url)
    got = at.ask({**BODY, "stream": True})
    events = [line for line in got.text.split("\n") if line.startswith("data: ")]
    assert got.content.startswith(Elsewhere.STREAM[0])
    assert json.loads(events[-1][6:])["error"]["code"] == "upstream_lost"
    assert len(first.seen) + len(second.seen) == 1


def test_fallbacks_answer_in_order_then_the_local_model(elsewhere: Make, gateway: Make) -> None:
    second = elsewhere()
    seldom = {**QUICK, **SELDOM}
    models = {"second": {"upstream": {"urls": [second.url], **seldom}}}
    big = {"fallback": ["second", "base"], "upstream": {"urls": [nowhere()], **seldom}}
    route = {"name": "all", "when": {"characters": {"at_least": 0}}, "models": ["big"]}
    at = gateway(models={**models, "big": big, "base": {}}, routes=[route])
    forget_health(at, "big", "second")
    auto = {**BODY, "model": "auto"}
    got = at.ask(auto)
    assert (got.json()["model"], got.headers["X-Vlinders-Model"]) == ("second", "second")
    assert got.headers["X-Vlinders-Route-Reason"].endswith("; instead of big")
    second.served.stop()
    wait_for(lambda: at.upstream().usable, "its breaker does not let it try again")
    got = at.ask(auto)
    assert (got.json(), got.headers["X-Vlinders-Model"]) == ({"model": "base", "here": True}, "base")
    named = at.ask({**BODY, "model": "second"})
    assert named.status_code == 503


def test_a_message_that_breaks_off_says_so_as_anthropics_clients_understand_it(
    elsewhere: Make, gateway: Make
) -> None:
    at = gateway(elsewhere("break").url)
    body = {**BODY, "max_tokens": 5, "stream": True}
    event, data = at.client.post("/v1/messages", json=body).text.strip().split("\n")[-2:]
    assert event == "event: error"
    assert json.loads(data[6:])["error"]["type"] == "api_error"


@pytest.mark.parametrize("how", ["hang", "wait"])
def test_what_takes_too_long_is_not_asked_again(how: str, elsewhere: Make, gateway: Make) -> None:
    first, second = elsewhere(how), elsewhere(how)
    limits = {"first_byte_seconds": 2, "idle_seconds": 1}
    at = gateway(first.url, second.url, upstream=limits)
    got = at.ask({**BODY, "stream": how == "wait"})
    assert (got.status_code, got.json()["error"]["code"]) == (504, "upstream_timeout")
    assert len(first.seen) + len(second.seen) == 1


def test_every_target_down_is_503_with_what_was_tried(gateway: Make) -> None:
    urls = (nowhere(), nowhere())
    at = gateway(*urls, upstream=SELDOM)
    forget_health(at)
    got = at.ask()
    assert got.status_code == 503
    assert "X-Vlinders-Model" not in got.headers
    error = got.json()["error"]
    assert error["code"] == "upstreams_down"
    assert all(f"big (replica {n} cannot be connected to)" in error["message"] for n in (1, 2))
    assert not any(url.rpartition(":")[2] in error["message"] for url in urls)  # addresses are ours to know
    assert "Retry-After" in got.headers


def test_no_other_model_answers_for_a_route_whose_models_are_down(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere()
    routes = [
        {"name": "private", "when": {"prompt": {"contains": "hi"}}, "models": ["big"]},
        {"name": "rest", "when": {"turns": 1}, "models": ["base"]},
    ]
    at = gateway(there.url, models={"base": {}}, routes=routes)
    auto = {**BODY, "model": "auto"}
    assert at.ask(auto).headers["X-Vlinders-Model"] == "big"
    for lost in (503, "unhealthy"):  # as it is found when asked, and as it is known before
        there.mode = lost
        there.healthy = lost != "unhealthy"
        wait_for(lambda: at.upstream().replicas[0].up is there.healthy, "it is not looked at")
        got = at.ask(auto)
        assert (got.status_code, got.headers["X-Vlinders-Route"]) == (503, "private")
        assert "tried: big" in got.json()["error"]["message"]


def test_errors_of_the_request_are_passed_back(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere(400)
    got = gateway(there.url).ask()
    assert (got.status_code, got.json()["error"]["message"], len(there.seen)) == (400, "no", 1)


def test_a_404_everywhere_is_passed_back_and_is_no_replicas_fault(elsewhere: Make, gateway: Make) -> None:
    first, second = elsewhere(404), elsewhere(404)
    at = gateway(first.url, second.url)
    for asked in (1, 2, 3):
        got = at.ask()
        assert (got.status_code, got.json()["error"]["message"]) == (404, "no")
        assert len(first.seen) == len(second.seen) == asked
    first.mode = 503
    got = at.ask()
    assert (got.status_code, got.json()["error"]["code"]) == (503, "upstreams_down")
    second.mode = "ok"
    assert at.ask().status_code == 200


def test_no_priority_goes_on_but_to_servers_like_ours_and_capped(
    elsewhere: Make, gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLINDERS_SCHEDULER__TENANTS", '{"default": {"priority": {"cap": 90}}}')
    active_settings.cache_clear()
    ours, stock = elsewhere(), elsewhere()
    tell = {"urls": [ours.url], "forward_priority": True}
    routes = [{"name": "r", "when": {"turns": 1}, "models": ["ours"], "request_priority": 70}]
    at = gateway(stock.url, models={"ours": {"upstream": tell}, "base": {}}, routes=routes)
    header = "x-vlinders-priority"
    assert at.ask({**BODY, "priority": 1000}, **{header: "5"}).status_code == 200
    for body, headers, sent in (
        ({"model": "ours", "priority": 1000}, {}, "90"),
        ({"model": "ours", "priority": 1000}, {header: "5"}, "5"),
        ({"model": "auto"}, {}, "70"),
    ):
        assert at.ask({**BODY, **body}, **headers).status_code == 200
        assert ours.seen[-1][0][header] == sent
    assert at.ask({**BODY, "priority": -1}).json()["error"]["code"] == "invalid_priority"
    assert not any("priority" in body for _, body in ours.seen + stock.seen)
    assert header not in stock.seen[0][0]
