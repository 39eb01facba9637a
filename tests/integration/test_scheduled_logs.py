"""The lines of a request in the log of a real server, ours and vLLM's."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from server import NAME, STATE, Server
from traffic import TENANT, Call

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 60


def lines_about(text: str, request_id: str) -> list[dict[str, Any]]:
    """Return the JSON lines that carry this request id."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request_id") == request_id]


def test_every_line_of_a_request_says_whose_it_is(scheduled: Server) -> None:
    headers = {TENANT: "acme", "X-Session-Id": "a-secret-session"}
    with scheduled.client() as client:
        answer = client.post("/v1/completions", json=Call("log").json(), headers=headers)
    name = answer.headers["X-Vlinders-Request-Id"]
    wanted = {"vllm", "uvicorn"}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted <= {line["logger"].split(".")[0] for line in lines_about(scheduled.log, name)}:
        assert time.monotonic() < deadline, scheduled.log[-3000:]
        time.sleep(0.2)

    lines = lines_about(scheduled.log, name)
    assert {line["tenant"] for line in lines} == {"acme"}
    assert len({line["session"] for line in lines}) == 1
    assert lines[-1]["model"] == NAME
    assert "a-secret-session" not in scheduled.log
    requests = Path(STATE.name) / "requests.jsonl"
    while not (about := lines_about(requests.read_text(), name)):  # it is written after the answer
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (line,) = about
    assert (line["status"], line["path"], line["completion_tokens"]) == (200, "/v1/completions", 6)
