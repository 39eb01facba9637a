"""Two API servers, two ranks, and one-off requests that overflow the KV cache of both: sessions find their prefix."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from server import NAME, RANK_BLOCKS, Server
from traffic import PATIENCE_SECONDS, POLL_SECONDS

pytestmark = pytest.mark.slow
BLOCK = 32
PROMPT, WHOLE_BLOCKS = 100, 96
SESSIONS = 8


def some_tokens(number: int) -> list[int]:
    return [random.randrange(10, 2000) for _ in range(number)]


def complete(server: Server, prompt: list[int], session: str | None = None) -> int:
    """Return how many of the prompt's tokens were cached; each call may reach the other API server."""
    body: dict[str, Any] = {"model": NAME, "prompt": prompt, "max_tokens": 4, "temperature": 0}
    with server.client() as client:
        headers = {"X-Session-Id": session} if session else {}
        answer = client.post("/v1/completions", json=body, headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    return int((answer.json()["usage"]["prompt_tokens_details"] or {}).get("cached_tokens") or 0)


def overflow(server: Server) -> None:
    """Send one-off requests of more blocks than both ranks have, three times over."""
    for _ in range(3 * 2 * RANK_BLOCKS // (1900 // BLOCK)):
        complete(server, some_tokens(1900))


def shown(server: Server, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what ``/vlinders/sessions`` shows, once it is `ready`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with server.client() as client:
            found: dict[str, Any] = client.get("/vlinders/sessions").json()
        if ready(found) or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


def counted(metrics: str, name: str) -> float:
    """Return the value of a line of ``/metrics``."""
    (value,) = (line.removeprefix(name) for line in metrics.splitlines() if line.startswith(name))
    return float(value)


@pytest.fixture(scope="module")
def ids() -> list[str]:
    """Names that no run before has used."""
    return [f"conversation {number} {random.random()}" for number in range(SESSIONS)]


def test_every_session_finds_all_of_its_prefix_again_and_others_do_not(
    data_parallel: Server, ids: list[str]
) -> None:
    hits_before = shown(data_parallel, lambda _: True)["others"].get("hit_tokens", 0)  # of the tests before
    prompts = [some_tokens(PROMPT) for _ in ids]
    nameless = [some_tokens(PROMPT) for _ in ids]
    for name, prompt, other in zip(ids, prompts, nameless, strict=True):
        assert complete(data_parallel, prompt, name) == 0
        assert complete(data_parallel, other) == 0

    overflow(data_parallel)

    assert [complete(data_parallel, [*other, 7]) for other in nameless] == [0] * SESSIONS
    found = [complete(data_parallel, [*prompt, 7], name) for name, prompt in zip(ids, prompts, strict=True)]
    assert found == [WHOLE_BLOCKS] * SESSIONS

    def settled(status: dict[str, Any]) -> bool:
        hits = status["tenants"].get("default", {}).get("hit_tokens", 0)
        at_home = status["ranks"].get("home", 0) >= 2 * SESSIONS
        return at_home and status["sessions"] >= SESSIONS and hits >= SESSIONS * WHOLE_BLOCKS

    status = shown(data_parallel, settled)
    assert status["ranks"]["home"] >= 2 * SESSIONS
    assert not status["ranks"].get("spilled")
    assert not status["ranks"].get("moved")
    assert status["sessions"] == SESSIONS
    assert status["tenants"]["default"]["hit_tokens"] == SESSIONS * WHOLE_BLOCKS
    assert 0 < status["kept_blocks"] <= status["most_blocks"] == RANK_BLOCKS
    assert status["others"]["hit_tokens"] == hits_before
    assert len(status["engine_cores"]) == 2
    with data_parallel.client() as client:
        metrics = client.get("/metrics").text
    assert counted(metrics, 'vlinders_session_hit_tokens_total{of="sessions"}') == SESSIONS * WHOLE_BLOCKS
    assert counted(metrics, 'vlinders_session_hit_tokens_total{of="others"}') == hits_before
    assert counted(metrics, 'vlinders_session_ranks_total{what="home"}') == status["ranks"]["home"]
    assert not any(name in str(status) for name in ids)


def test_a_session_is_shown_once_its_request_has_ended_and_its_id_is_not_repeated(
    data_parallel: Server,
) -> None:
    before = shown(data_parallel, lambda _: True)["sessions"]
    name = f"one more conversation {random.random()}"

    complete(data_parallel, some_tokens(PROMPT), name)

    after = shown(data_parallel, lambda status: status["sessions"] > before)
    assert after["sessions"] == before + 1
    with data_parallel.client() as client:
        known = client.get("/vlinders/sessions", params={"session": name})
        unknown = client.get("/vlinders/sessions", params={"session": name, "tenant": "another"})
    assert known.status_code == httpx.codes.OK
    assert known.json()["kept"]
    assert name not in known.text
    assert unknown.status_code == httpx.codes.NOT_FOUND
    assert httpx.get(f"{data_parallel.url}/vlinders/sessions").status_code == httpx.codes.UNAUTHORIZED


def test_an_id_that_is_too_long_is_answered_with_400(data_parallel: Server) -> None:
    with data_parallel.client() as client:
        answer = client.post("/v1/completions", json={"prompt": "x"}, headers={"X-Session-Id": "x" * 257})

    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.json()["error"]["code"] == "invalid_session"
