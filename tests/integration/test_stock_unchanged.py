"""Installed but not selected, the package changes nothing; selected, it changes no answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server import LORA_NAME, NAME, Server, Servers

pytestmark = pytest.mark.slow
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
VOLATILE = {"id", "created", "request_id"}
FIXED: dict[str, Any] = {"temperature": 0, "seed": 1, "max_tokens": 32}


def chat(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return path and body of a chat request."""
    return CHAT, {"model": NAME, "messages": [{"role": "user", "content": text}], **FIXED, **more}


def completion(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return path and body of a completion request."""
    return COMPLETIONS, {"model": NAME, "prompt": text, **FIXED, **more}


STREAM = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS = {
    "chat": chat("Tell me of butterflies."),
    "chat logprobs": chat("And of moths.", logprobs=True, top_logprobs=3),
    "chat stream": chat("And of dragonflies.", **STREAM),
    "chat stop": chat("Until here.", stop=["the", "a"]),
    "completion": completion("Permission is hereby granted"),
    "completion logprobs": completion("Subject to the terms", logprobs=4, echo=True),
    "completion stream": completion("Each Contributor", ignore_eos=True, **STREAM),
    "completion n": completion("Grant of", n=2, max_tokens=8),
    "prompts": (
        COMPLETIONS,
        {"model": NAME, "prompt": ["one", "two", "three"], **FIXED},
    ),
    "lora": completion("Redistribution", model=LORA_NAME),
    "long prompt": completion("work " * 700),
    "prefix cached": completion("work " * 700),
    "body priority 0": completion("No priority", priority=0),
    "no such model": completion("x", model="missing"),
    "bad temperature": completion("x", temperature=-1),
    "too long": completion("work " * 20_000),
}


def answers_of(server: Server) -> dict[str, Any]:
    """Return the answer to each request, without what differs each time."""
    with server.client() as client:
        return {name: comparable(client.post(path, json=body)) for name, (path, body) in REQUESTS.items()}


def comparable(answer: httpx.Response) -> Any:
    """Return status and body; of a stream, its text, roles and usage put together."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code, without_volatile(answer.json())
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = [c.get("text") or c.get("delta", {}).get("content") or "" for c in choices]
    return answer.status_code, "".join(text), choices[-1]["finish_reason"], chunks[-1]["usage"]


def without_volatile(value: Any) -> Any:
    """Return `value` without ids and times."""
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in value.items() if k not in VOLATILE}
    return [without_volatile(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def patched_answers(servers: Servers) -> dict[str, Any]:
    return answers_of(servers.get("patched"))


@pytest.fixture(scope="module")
def stock(servers: Servers, patched_answers: dict[str, Any]) -> Iterator[Server]:
    """The same server with the package installed and VLLM_CUSTOM_PATCHES unset."""
    yield servers.get("stock")
    servers.stop()


@pytest.fixture(scope="module")
def stock_answers(stock: Server) -> dict[str, Any]:
    return answers_of(stock)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_patches_change_no_answer(
    name: str, patched_answers: dict[str, Any], stock_answers: dict[str, Any]
) -> None:
    assert patched_answers[name] == stock_answers[name]


def test_without_the_variable_the_server_has_nothing_of_ours(stock: Server) -> None:
    with stock.client() as client:
        answers = [
            client.get("/health"),
            client.post(COMPLETIONS, json=completion("x")[1], headers={"X-Vlinders-Priority": "no"}),
            client.get("/vlinders/status"),
        ]
        metrics = client.get("/metrics").text

    assert [answer.status_code for answer in answers] == [200, 200, 404]
    names = {name.lower() for answer in answers for name in answer.headers}
    assert not [name for name in names if name.startswith("x-vlinders")]
    assert "vlinders" not in metrics


def test_without_the_variable_the_log_does_not_mention_us(stock: Server) -> None:
    """Beyond vLLM's own lines: which plugins it found, and the addresses of requests."""
    mentions = [line for line in stock.log.splitlines() if "vlinders" in line.lower()]

    assert [line for line in mentions if not re.search(r"plugin|/vlinders/status", line)] == []
