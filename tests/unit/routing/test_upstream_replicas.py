"""Which replica of an upstream is asked: health, connections, load, sessions, turns."""

from __future__ import annotations

import pytest
from elsewhere import Served, wait_for
from gateway import BODY, CHAT, QUICK, Make, nowhere

from vllm_vlinders.errors import SettingsError


def test_health_takes_a_replica_out_and_back_in(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere()
    at = gateway(there.url)
    replica = at.upstream().replicas[0]
    wait_for(lambda: replica.up, "it is not looked at")
    there.healthy = False
    wait_for(lambda: replica.up is False, "it stays")
    assert at.ask().status_code == 503
    auto = at.ask({**BODY, "model": "auto"}, **{"X-Vlinders-Requirements": "model=big"})
    assert auto.json()["model"] == "base"
    there.healthy = True
    wait_for(lambda: replica.up, "it does not come back")
    assert at.ask().status_code == 200


def test_full_connections_hold_up_no_look_and_no_other_model(
    elsewhere: Make, gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_vlinders.serving.upstreams.pool._LOOK_SECONDS", 0.3)
    full, other = elsewhere("endless"), elsewhere()
    one = {**QUICK, "max_connections": 1}
    at = gateway(full.url, upstream=one, models={"other": {"upstream": {"urls": [other.url], **one}}})
    with at.client.stream("POST", CHAT, json={**BODY, "stream": True}) as got:
        parts = got.iter_raw()
        next(parts)
        looks = full.looks
        wait_for(lambda: full.looks > looks + 3, "its health is not looked at")
        assert at.upstream().replicas[0].up
        assert at.ask({**BODY, "model": "other"}).status_code == 200


def test_what_a_replica_tells_of_its_load_is_read(elsewhere: Make, gateway: Make) -> None:
    at = gateway(elsewhere().url)
    wait_for(lambda: at.upstream().replicas[0].told == 1.0, "its load is not known")


def test_an_upstream_that_ends_and_comes_back(elsewhere: Make, gateway: Make) -> None:
    there = elsewhere()
    at = gateway(there.url)
    assert at.ask().status_code == 200
    port = there.served.port
    there.served.stop()
    assert at.ask().status_code == 503
    there.served = Served(there.app, port)
    wait_for(lambda: at.ask().status_code == 200, "it is not used again")


def test_a_session_stays_with_its_replica(elsewhere: Make, gateway: Make) -> None:
    servers = [elsewhere(), elsewhere(), elsewhere()]
    at = gateway(*(server.url for server in servers))
    for session in ("one", "two", "three", "four", "five", "six"):
        before = [len(server.seen) for server in servers]
        for _ in range(4):
            at.ask(**{"X-Session-Id": session})
        grown = [len(server.seen) - n for server, n in zip(servers, before, strict=True)]
        assert sorted(grown) == [0, 0, 4]
    assert sum(bool(server.seen) for server in servers) > 1


def test_without_a_session_the_replicas_take_turns(elsewhere: Make, gateway: Make) -> None:
    servers = [elsewhere(), elsewhere()]
    at = gateway(*(server.url for server in servers))
    for _ in range(10):
        at.ask()
    assert [len(server.seen) for server in servers] == [5, 5]


def test_an_unreachable_upstream_can_refuse_the_start(gateway: Make) -> None:
    url = nowhere()
    with pytest.raises(SettingsError, match=rf"routing.unreachable: {url}/health: cannot be connected to"):
        gateway(url, unreachable="refuse")


def test_a_key_that_is_not_there_refuses_the_start(gateway: Make) -> None:
    with pytest.raises(SettingsError, match=r"routing.models.big.upstream.key: env:MISSING is empty"):
        gateway(nowhere(), upstream={"key": "env:MISSING"})
