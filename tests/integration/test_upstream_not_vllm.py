"""A model that a real server answers which is not vLLM: `transformers serve`."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import openai
import pytest

from server import MODEL, Server

pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"
NAME = "elsewhere"
PATIENCE = 500


def asking(model: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Who else is there?"}]
    return {"model": model, "messages": messages, "max_tokens": 6, "temperature": 0, **more}


@pytest.fixture
def gateway(scheduled: Server, elsewhere: str) -> Server:
    """The server that knows it, once it has found it."""
    deadline = time.monotonic() + PATIENCE
    with scheduled.client() as client:
        while not re.search(rf'upstream_up\{{model="{NAME}",.*\}} 1\.0', client.get("/metrics").text):
            assert time.monotonic() < deadline, f"{elsewhere} is not seen"
            time.sleep(0.2)
    return scheduled


def parts(text: str) -> list[Any]:
    """Return what the parts of a stream say, without what is new in each answer."""
    found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [(part["choices"], part.get("usage")) for part in found]


def test_its_answer_is_passed_on(gateway: Server, elsewhere: str) -> None:
    with gateway.client() as client:
        routed = client.post(CHAT, json=asking(NAME))
    direct = httpx.post(f"{elsewhere}{CHAT}", json=asking(str(MODEL)), timeout=600)

    assert routed.status_code == 200, routed.text
    assert routed.headers["X-Vlinders-Model"] == NAME
    assert routed.json()["choices"] == direct.json()["choices"]
    assert routed.json()["usage"] == direct.json()["usage"]


def test_its_stream_is_passed_on(gateway: Server, elsewhere: str) -> None:
    with gateway.client() as client:
        routed = client.post(CHAT, json=asking(NAME, stream=True))
    direct = httpx.post(f"{elsewhere}{CHAT}", json=asking(str(MODEL), stream=True), timeout=600)

    assert routed.status_code == 200, routed.text
    assert len(parts(routed.text)) > 6
    assert parts(routed.text) == parts(direct.text)


def test_the_openai_client_sees_no_difference(gateway: Server) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)

    answer = client.chat.completions.create(**asking(NAME))

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
