"""Models that other real servers answer: what passes through, and what happens when one is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from server import NAME, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHAT = "/v1/chat/completions"
PATIENCE = 500


def asking(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": 5, "temperature": 0, **more}


def said(text: str) -> Any:
    """Return what an answer says, without ids and times; of a stream, however many tokens came in one event."""
    if not text.startswith("data: "):
        return re.sub(r'"(id|created|system_fingerprint)": ?("[^"]*"|\d+)', "", text)
    *events, done = (line.removeprefix("data: ") for line in text.splitlines() if line)
    chunks = [json.loads(event) for event in events]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return (
        "".join(choice["delta"].get("content") or "" for choice in choices),
        [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        {chunk["model"] for chunk in chunks},
        chunks[-1]["usage"],
        done,
    )


def wait_for(state: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not state():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def running(server: Server) -> float:
    """Return how many requests run there, as of the end of one more: without one its gauge would not move."""
    with server.client() as client:
        client.post(CHAT, json=asking("x", model=NAME, max_tokens=1))
        text = client.get("/metrics").text
    return sum(map(float, re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)))


def kill(server: Server) -> None:
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGKILL)
    server.stop()


def all_up(gateway: Server, number: int) -> bool:
    with gateway.client() as client:
        text = client.get("/metrics").text
    return (
        len(re.findall(r'^vlinders_route_upstream_up\{model="far",.*\} 1\.0$', text, re.MULTILINE)) == number
    )


@pytest.fixture
def gateway(far: tuple[Server, ...], scheduled: Server) -> Server:
    wait_for(lambda: all_up(scheduled, len(far)), "the replicas are not seen")
    return scheduled


def test_what_comes_back_is_what_the_upstream_gives(gateway: Server, far: tuple[Server, ...]) -> None:
    extras: list[dict[str, Any]] = [
        {"n": 2, "temperature": 1, "seed": 1, "logprobs": True, "top_logprobs": 2},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"response_format": {"type": "json_object"}},
    ]
    with gateway.client() as here, far[0].client() as there:
        for more in extras:
            body = asking("What is far away?", **more)
            got = here.post(CHAT, json=body)
            assert got.status_code == 200, got.text
            assert (got.headers["X-Vlinders-Model"], got.headers["X-Vlinders-Route"]) == ("far", "far")
            expected = there.post(CHAT, json={**body, "model": NAME})
            if "response_format" not in more:  # what a random model puts into JSON can vary
                assert said(got.text) == said(expected.text)
        assert here.post(CHAT, json=asking("x", model="far", temperature=-1)).status_code == 400


def test_the_openai_client_uses_it_by_both_names(gateway: Server) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="not theirs", max_retries=0)
    assert {"auto", "far"} <= {model.id for model in client.models.list()}
    for model in ("auto", "far"):
        stream = client.chat.completions.create(**asking("far away", model=model, stream=True))
        assert {chunk.model for chunk in stream} == {NAME}
        assert client.responses.create(model=model, input="far away", max_output_tokens=3).model == NAME


def test_a_client_that_leaves_frees_the_upstream(gateway: Server, far: tuple[Server, ...]) -> None:
    body = asking("far away", stream=True, max_tokens=15_000, ignore_eos=True)
    with gateway.client() as client, client.stream("POST", CHAT, json=body) as answer:
        chunks = answer.iter_raw()  # kept: the connection ends with it
        next(chunks)
        wait_for(lambda: sum(map(running, far)) == 1, "it does not run")
    wait_for(lambda: sum(map(running, far)) == 0, "it runs on")


def test_killed_while_streaming_and_while_idle(gateway: Server, far: tuple[Server, ...]) -> None:
    body = asking("far away", stream=True, max_tokens=15_000, ignore_eos=True)
    with gateway.client() as client:
        with client.stream("POST", CHAT, json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            busy = next(server for server in far if running(server))
            kill(busy)
            events = [line for line in lines if line.startswith("data: ")]
        assert json.loads(events[-1][6:])["error"]["code"] == "upstream_lost"
        for _ in range(6):
            answer = client.post(CHAT, json=asking("far away"))
            assert (answer.status_code, answer.headers["X-Vlinders-Model"]) == (200, "far")
        kill(next(server for server in far if server is not busy))
        for _ in range(3):
            answer = client.post(CHAT, json=asking("far away"))
            assert (answer.status_code, answer.headers["X-Vlinders-Model"]) == (200, NAME)
        named = client.post(CHAT, json=asking("far away", model="far"))
        assert (named.status_code, named.json()["error"]["code"]) == (503, "upstreams_down")
        assert "far (" in named.json()["error"]["message"]


def test_the_load_of_the_engine_is_a_signal(scheduled: Server) -> None:
    def load() -> float:
        with scheduled.client() as client:
            explained = client.post("/vlinders/route", json={"prompt": "x"}).json()
        return float(explained["signals"]["load"])

    body = asking("x", model=NAME, stream=True, max_tokens=15_000, ignore_eos=True)
    with httpx.Client(base_url=scheduled.url, timeout=120) as client, client.stream("POST", CHAT, json=body):
        wait_for(lambda: load() > 0, "the engine seems idle")
