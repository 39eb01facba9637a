"""SIGTERM under load: what runs ends whole, what comes is turned away, the process ends in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from second_count import Exposed
from server import NAME, PATCHED, Server, Servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHUTDOWN_SECONDS = 200
GRACE_SECONDS = SHUTDOWN_SECONDS + 20
"""As terminationGracePeriodSeconds of docker/kubernetes, without its preStop."""
TOKENS = 300
STREAMS = 5
"""More than run at once: some still wait when the server is asked to stop."""
COMMON = (
    *("--max-num-seqs", "3", "--worker-cls", "paced_worker.PacedWorker"),
    *("--shutdown-timeout", str(SHUTDOWN_SECONDS)),
)


@pytest.fixture(params=[1, 2], ids=["one API server", "two API servers"])
def draining(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test alone: it does not survive it."""
    servers.stop()
    server = Server("draining", (*COMMON, "--api-server-count", str(request.param)), PATCHED)
    server.start()
    yield server
    server.stop()


async def read_stream(client: httpx.AsyncClient, begun: asyncio.Semaphore) -> dict[str, Any]:
    """Return what a stream came to: its text's parts, whether it ended, and the usage it reports."""
    body = {"model": NAME, "prompt": "x", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    found: dict[str, Any] = {"parts": 0, "done": False, "usage": None}
    options = {"stream_options": {"include_usage": True}}
    async with client.stream("POST", "/v1/completions", json=body | options) as answer:
        assert answer.status_code == httpx.codes.OK, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                found["done"] = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                found["usage"] = chunk.get("usage") or found["usage"]
                found["parts"] += 1
                if found["parts"] == 1:
                    begun.release()
    return found


async def refused(client: httpx.AsyncClient) -> bool:
    """Tell whether a new request is turned away."""
    try:
        answer = await client.get("/v1/models")
    except httpx.TransportError:
        return True
    return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE


def requests_in(server: Server) -> float:
    """Return how many requests have got past the door so far."""
    now = Exposed(server)
    return now.total("vlinders_active_requests") + now.total("vlinders_requests_total")


async def stop_under_load(server: Server) -> list[dict[str, Any]]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client:
        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(read_stream(client, begun)) for _ in range(STREAMS)]
        async with asyncio.timeout(GRACE_SECONDS):
            await begun.acquire()
            while await asyncio.to_thread(requests_in, server) < STREAMS:  # noqa: ASYNC110 -- as below
                await asyncio.sleep(0.05)
        assert server.process is not None
        server.process.terminate()
        async with asyncio.timeout(GRACE_SECONDS):
            while not await refused(client):  # noqa: ASYNC110 -- a server tells only when it is asked
                await asyncio.sleep(0.05)
            ran_on = sum(not stream.done() for stream in streams)
            ended = await asyncio.gather(*streams)
        assert ran_on > 0, "the server refused nothing before its streams had ended"
        return ended


def test_streams_end_whole_and_new_requests_are_turned_away(draining: Server) -> None:
    ended = asyncio.run(stop_under_load(draining))

    assert [stream["done"] for stream in ended] == [True] * STREAMS, draining.log[-3000:]
    assert [stream["usage"]["completion_tokens"] for stream in ended] == [TOKENS] * STREAMS
    assert draining.process is not None
    assert draining.process.wait(GRACE_SECONDS) == 0, draining.log[-3000:]
    assert '"event": "drained"' in draining.log
    assert "cut off" not in draining.log
