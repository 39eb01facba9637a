"""Two API servers, two engine cores: each has its patches, and all of it is guarded by the key."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from server import ELSEWHERE, Server
from traffic import PRIORITY, Call
from vllm_vlinders.patches import PATCHES
from vllm_vlinders.patching.gate import running_vllm_version

pytestmark = pytest.mark.slow
SETTLE_SECONDS = 300


def acting_in(process: str) -> set[str]:
    """Return the patches that a server of the running vLLM applies in such a process."""
    version = running_vllm_version()
    chosen = {patch.name for patch in PATCHES if patch.process == process and patch.target_for(version)}
    return chosen - ELSEWHERE


def processes_of(server: Server) -> dict[str, list[dict[str, str]]]:
    """Return role to the states of the patches of each process; all API servers have reported."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        with server.client() as client:
            status: dict[str, Any] = client.get("/vlinders/status").json()
        roles: dict[str, list[dict[str, str]]] = {}
        for process in status["processes"]:
            states = {patch["patch"]: patch["state"] for patch in process["patches"]}
            roles.setdefault(process["role"], []).append(states)
        ready = len(roles.get("api_server", ())) >= 2 and "main" in roles
        if ready or time.monotonic() > deadline:
            return roles
        time.sleep(0.2)  # /health answers as soon as the first API server does


def test_status_lists_every_process_with_every_patch(data_parallel: Server) -> None:
    roles = processes_of(data_parallel)

    assert len(roles["api_server"]) == 2
    assert len(roles["engine_core"]) == 2
    assert len(roles["worker"]) == 2
    assert "main" in roles
    for processes in roles.values():
        assert all(states.keys() == {patch.name for patch in PATCHES} for states in processes)


def test_both_api_servers_and_both_engine_cores_have_their_patches(data_parallel: Server) -> None:
    roles = processes_of(data_parallel)

    for states in roles["api_server"]:
        assert {name for name, state in states.items() if state == "applied"} == acting_in("api_server")
    for states in roles["engine_core"]:
        assert {name for name, state in states.items() if state == "applied"} == acting_in("engine_core")
    every = {state for group in roles.values() for states in group for state in states.values()}
    assert not {"failed", "drifted", "not_for_version", "off"} & every


def test_requests_work_on_both_api_servers(data_parallel: Server) -> None:
    """Every connection may reach the other API server, so many short ones reach both."""
    answers = []
    for number in range(12):
        with data_parallel.client() as client:
            call = Call(f"{number}", header=number, stream=number % 2 == 0)
            answers.append(client.post(call.path, json=call.json(), headers=call.headers()))

    assert [answer.status_code for answer in answers] == [200] * 12
    assert all("X-Vlinders-Request-Id" in answer.headers for answer in answers)


def test_both_api_servers_refuse_a_wrong_priority(data_parallel: Server) -> None:
    for _ in range(8):
        with data_parallel.client() as client:
            answer = client.post("/v1/completions", json=Call("x").json(), headers={PRIORITY: "1001"})
        assert answer.status_code == httpx.codes.BAD_REQUEST


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Bearer wrong"}, id="wrong"),
        pytest.param({"Authorization": ""}, id="empty"),
    ],
)
def test_status_needs_the_key_of_the_server(data_parallel: Server, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{data_parallel.url}/vlinders/status", headers=headers)

    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "processes" not in answer.text


def test_vllms_own_key_check_still_stands(data_parallel: Server) -> None:
    answer = httpx.post(f"{data_parallel.url}/v1/completions", json=Call("x").json())

    assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_both_api_servers_take_over_a_level_that_one_has_set(data_parallel: Server) -> None:
    with data_parallel.client() as client:
        assert client.post("/vlinders/logging", json={"level": "debug"}).json() == {"level": "debug"}
    deadline = time.monotonic() + SETTLE_SECONDS
    while len(levels := {level_of_one(data_parallel) for _ in range(8)}) > 1 or levels != {"debug"}:
        assert time.monotonic() < deadline, levels
    with data_parallel.client() as client:
        assert client.post("/vlinders/logging", json={"level": "info"}).json() == {"level": "info"}


def level_of_one(server: Server) -> str:
    """Return the level of one of the API servers."""
    with server.client() as client:
        return str(client.get("/vlinders/logging").json()["level"])
