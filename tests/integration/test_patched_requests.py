"""What a patched server answers beside the order: validation, its headers, its status, its log."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest

from server import ELSEWHERE, NAME, Server
from traffic import PRIORITY, Call
from vllm_vlinders.patches import PATCHES
from vllm_vlinders.patching.gate import running_vllm_version

pytestmark = pytest.mark.slow
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
REQUEST_ID = "X-Vlinders-Request-Id"


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the error of a refusal, after checking that it has OpenAI's shape."""
    assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    return error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("value", ["5.5", "abc", "1001", "-1", ""])
def test_a_wrong_priority_header_is_refused(patched: Server, value: str, path: str, stream: bool) -> None:
    with patched.client() as client:
        answer = client.post(path, json=Call("x", path=path, stream=stream).json(), headers={PRIORITY: value})

    error = error_of(answer)
    assert PRIORITY in error["message"]
    assert error["message"].startswith((f"{PRIORITY}: {value} ", f"{PRIORITY}: {value!r} "))
    assert "from 0 to 1000" in error["message"]
    assert error["param"] == PRIORITY
    assert answer.headers[REQUEST_ID]


@pytest.mark.parametrize("stream", [False, True])
def test_a_priority_header_given_twice_is_refused(patched: Server, stream: bool) -> None:
    with patched.client() as client:
        answer = client.post(
            COMPLETIONS,
            json=Call("x", stream=stream).json(),
            headers=[(PRIORITY, "5"), (PRIORITY, "6")],
        )

    error = error_of(answer)
    assert error["message"] == f"{PRIORITY}: given 2 times; give it once"
    assert error["param"] == PRIORITY


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/responses"])
@pytest.mark.parametrize("value", [5000, 1001, -1])
def test_a_wrong_priority_in_the_body_is_refused_before_the_answer_starts(
    patched: Server, value: int, path: str, stream: bool
) -> None:
    with patched.client() as client:
        answer = client.post(path, json=Call("x", body=value, path=path, stream=stream).json())

    error = error_of(answer)
    assert str(value) in error["message"]
    assert "from 0 to 1000" in error["message"]
    assert error["param"] == "priority"


def test_every_answer_carries_its_own_request_id(patched: Server) -> None:
    with patched.client() as client:
        answers = [
            client.get("/health"),
            client.get("/vlinders/status"),
            client.get("/no/such/path"),
            client.post(COMPLETIONS, json=Call("x", stream=True).json()),
            client.post(CHAT, json=Call("x", path=CHAT).json()),
        ]

    ids = [answer.headers.get_list(REQUEST_ID) for answer in answers]
    assert [len(found) for found in ids] == [1] * len(answers)
    assert len({found[0] for found in ids}) == len(answers)


def test_status_names_every_patch_of_every_process(patched: Server) -> None:
    with patched.client() as client:
        status = client.get("/vlinders/status").json()

    version = running_vllm_version()
    assert status["vllm"] == str(version)
    states = {process["role"]: states_of(process) for process in status["processes"]}
    everywhere = {patch.name for patch in PATCHES}
    assert all(states[role].keys() == everywhere for role in states)
    for patch in PATCHES:
        if patch.name in ELSEWHERE and patch.target_for(version):
            assert states["main" if "api_server" not in states else "api_server"][patch.name] in (
                "waiting",
                "applied",
            )
            continue
        expected = "applied" if patch.target_for(version) else "not_needed"
        assert states[patch.process][patch.name] == expected, patch.name


def states_of(process: dict[str, Any]) -> dict[str, str]:
    """Return patch name to state."""
    return {patch["patch"]: patch["state"] for patch in process["patches"]}


def test_metrics_tell_which_patches_are_applied(patched: Server) -> None:
    with patched.client() as client:
        text = client.get("/metrics").text

    lines = [line for line in text.splitlines() if line.startswith("vlinders_patch_info{")]
    now = "".join(line for line in lines if line.endswith(" 1.0"))
    assert {patch.name for patch in PATCHES if f'patch="{patch.name}"' in now} == {
        patch.name for patch in PATCHES
    }


def test_the_log_has_one_line_per_patch_and_process_and_no_warning_of_ours(patched: Server) -> None:
    log = patched.log
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    patches = [event for event in events if event["event"] == "patch"]

    assert "Unknown vLLM environment variable" not in log
    with patched.client() as client:
        processes = client.get("/vlinders/status").json()["processes"]
    for process in processes:
        counted = Counter(e["patch"] for e in patches if e["pid"] == process["pid"])
        assert counted == {patch.name: 1 for patch in PATCHES}, process["role"]
    assert {event["level"] for event in patches} == {"info"}


def test_models_and_the_rest_of_the_api_are_vllms_own(patched: Server) -> None:
    with patched.client() as client:
        models = client.get("/v1/models").json()["data"]
        version = client.get("/version").json()
        tokens = client.post("/tokenize", json={"model": NAME, "prompt": "Hello"}).json()

    assert [model["id"] for model in models] == [NAME, "code"]
    assert version.keys() == {"version"}
    assert tokens["count"] == len(tokens["tokens"]) > 0
