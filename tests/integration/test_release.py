"""The oldest supported vLLM: the same patches, the same promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from packaging.version import Version

from server import ELSEWHERE, LORA_NAME, RELEASE, SLOTS, Server, Servers
from traffic import Call, order_of_service
from vllm_vlinders.patches import PATCHES

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _stop_it(servers: Servers) -> Iterator[None]:
    yield
    servers.stop()


def test_all_patches_are_applied(release: Server) -> None:
    with release.client() as client:
        status = client.get("/vlinders/status").json()

    assert status["vllm"].startswith(RELEASE)
    applied = {
        patch["patch"]
        for process in status["processes"]
        for patch in process["patches"]
        if patch["state"] == "applied"
    }
    version = Version(status["vllm"])
    assert applied | ELSEWHERE == {patch.name for patch in PATCHES if patch.target_for(version)} | ELSEWHERE


def test_the_urgent_overtake_and_equals_keep_their_order(release: Server) -> None:
    """A LoRA request among them: here it may have waited in vLLM's second queue."""
    calls = [
        Call("normal"),
        Call("lora, body 5", body=5, model=LORA_NAME),
        Call("header 90", header=90, path="/v1/chat/completions"),
        Call("body 5", body=5),
        Call("lora, header 100", header=100, model=LORA_NAME, stream=True),
        Call("normal, last"),
    ]

    order = order_of_service(release, SLOTS, calls)

    assert order == [
        "lora, header 100",
        "header 90",
        "lora, body 5",
        "body 5",
        "normal",
        "normal, last",
    ]


def test_requests_for_auto_are_routed(release: Server) -> None:
    with release.client() as client:
        assert "auto" in {model["id"] for model in client.get("/v1/models").json()["data"]}
        for path, field in (("/v1/completions", "prompt"), ("/v1/responses", "input")):
            body = {"model": "auto", field: "What is the capital of France?"}
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["model"]) == (200, LORA_NAME)
            assert answer.headers["X-Vlinders-Model"] == LORA_NAME


def test_the_log_warns_of_nothing_of_ours(release: Server) -> None:
    assert "Unknown vLLM environment variable" not in release.log
