"""`model: auto` in a real server: a base model and a LoRA adapter to choose from."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import openai
import pytest

from server import LORA_NAME, NAME, Server

pytestmark = pytest.mark.slow
CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
EASY = "What is the capital of France?"
STRONG = {"X-Vlinders-Requirements": "quality=high, cost=high"}


def asking(path: str, text: str, **more: Any) -> dict[str, Any]:
    if path == COMPLETIONS:
        return {"model": "auto", "prompt": text, "max_tokens": 4, **more}
    if path == RESPONSES:
        return {"model": "auto", "input": text, "max_output_tokens": 4, **more}
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_auto_is_answered_by_the_model_that_the_headers_name(scheduled: Server, path: str) -> None:
    with scheduled.client() as client:
        for headers, model in (({}, LORA_NAME), (STRONG, NAME)):
            answer = client.post(path, json=asking(path, EASY), headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == model
            assert answer.headers["X-Vlinders-Model"] == model
            assert answer.headers["X-Vlinders-Route"] == "simple_question"
            assert answer.headers["X-Vlinders-Route-Reason"].startswith("score; category=simple_qa")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_a_stream_is_the_one_that_the_chosen_model_gives(scheduled: Server, path: str) -> None:
    """A slow client finds the tokens of several steps in one event: what they say counts, not how many they are."""

    def events(**more: Any) -> tuple[set[str], str, str]:
        body = asking(path, EASY, temperature=0, stream=True, **more)
        answer = client.post(path, json=body, headers={"X-Session-Id": "streams"})
        assert answer.status_code == 200
        kinds = set(re.findall(r"^event: ?(\S+)", answer.text, re.MULTILINE))
        texts = re.findall(r'"(?:text|content|delta)": ?("(?:[^"\\]|\\.)*")', answer.text)
        return kinds, "".join(map(json.loads, texts)), answer.text

    with scheduled.client() as client:
        routed, named = events(), events(model=LORA_NAME)
        assert routed[:2] == named[:2]
        assert routed[1]
        assert set(re.findall(r'"model": ?"([^"]*)"', routed[2])) == {LORA_NAME}


def test_the_openai_client_finds_and_uses_auto(scheduled: Server) -> None:
    client = openai.OpenAI(base_url=f"{scheduled.url}/v1", api_key="none", max_retries=0)
    assert "auto" in {model.id for model in client.models.list()}
    answer = client.chat.completions.create(
        model="auto",
        max_tokens=3,
        n=2,
        logprobs=True,
        top_logprobs=2,
        messages=[{"role": "user", "content": EASY}],
    )
    assert (answer.model, len(answer.choices)) == (LORA_NAME, 2)
    assert answer.choices[1].logprobs is not None
    stream = client.completions.create(model="auto", prompt=EASY, max_tokens=3, stream=True)
    assert {chunk.model for chunk in stream} == {LORA_NAME}
    with pytest.raises(openai.BadRequestError, match="quality may be low, medium, high"):
        client.completions.create(
            model="auto", prompt="x", extra_headers={"X-Vlinders-Requirements": "quality=best"}
        )


def test_a_model_that_is_named_is_left_alone(scheduled: Server) -> None:
    with scheduled.client() as client:
        answer = client.post(CHAT, json=asking(CHAT, EASY, model=NAME))
        assert (answer.json()["model"], "X-Vlinders-Model" in answer.headers) == (NAME, False)
        assert client.post(CHAT, json=asking(CHAT, EASY, model="other")).status_code == 404


def test_a_route_sets_what_the_request_leaves_open(scheduled: Server) -> None:
    with scheduled.client() as client:
        body = asking(CHAT, "three tokens, please")
        del body["max_tokens"]
        answer = client.post(CHAT, json=body)
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert answer.headers["X-Vlinders-Route"] == "short"
        assert answer.headers["X-Vlinders-Route-Reason"].startswith("route")
        explained = client.post("/vlinders/route", json=body).json()
        assert (explained["model"], explained["route"]) == (LORA_NAME, "short")


def test_what_it_saves_is_counted(scheduled: Server) -> None:
    with scheduled.client() as client:
        before = client.get("/vlinders/usage").json()["routing"]
        usage = client.post(CHAT, json=asking(CHAT, EASY)).json()["usage"]

        def grown(name: str) -> float:
            return float(client.get("/vlinders/usage").json()["routing"][name] - before[name])

        deadline = time.monotonic() + 60
        while not grown("cost"):  # it is counted when the answer has ended
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert grown("cost") == pytest.approx(usage["total_tokens"] * 0.002 / 1000)
        assert grown("saved") == pytest.approx(usage["total_tokens"] * (0.03 - 0.002) / 1000)


@pytest.mark.parametrize(
    "content",
    [
        b'{"model": "auto"}',
        b'{"model": "auto", "messages": []}',
        b'{"model": "auto", "messages": [{"role": "user", "content": ""}]}',
        json.dumps(asking(CHAT, "é\u4e2d\u0000\ud83d\ude00")).encode(),
        json.dumps(asking(CHAT, "word " * 200_000)).encode(),
        json.dumps(asking(CHAT, "", messages=[{"role": "user", "content": "x"}] * 10_000)).encode(),
        b'{"model": "auto", "messages": [{"role": "user", "content": ' + b"[" * 400 + b"]" * 400 + b"}]}",
        b"\x00\xff",
    ],
    ids=["nothing", "no message", "empty", "odd text", "1 MB", "10,000 messages", "deep", "binary"],
)
def test_odd_prompts_are_answered_or_refused(scheduled: Server, content: bytes) -> None:
    with scheduled.client() as client:
        answer = client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400), answer.text
