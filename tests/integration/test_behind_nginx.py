"""The shipped nginx configuration in front of a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from proxy import Nginx, available
from server import NAME, Server
from traffic import ENDLESS, PATIENCE_SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="nginx is missing (Debian: apt-get install nginx)"),
]
CHAT = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
def nginx(tmp_path: Path, patched: Server) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path, [f"127.0.0.1:{patched.port}"])
    with proxy.running():
        yield proxy


async def waiting_parts(nginx: Nginx, server: Server) -> list[str]:
    """Return the first parts of a chat that goes on for as long as somebody reads it."""
    body = CHAT | {"max_tokens": ENDLESS, "ignore_eos": True}
    headers = {"X-Session-Id": "a"}
    parts: list[str] = []
    async with httpx.AsyncClient(base_url=nginx.url, timeout=PATIENCE_SECONDS) as client:
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status_code == httpx.codes.OK
            assert answer.headers["X-Vlinders-Request-Id"]
            async for line in answer.aiter_lines():
                parts += [line] if line else []
                if len(parts) == 5:
                    await asyncio.to_thread(nginx.reload)
                if len(parts) == 10:
                    break
        # The client has left: nginx tells the server, which would else generate for minutes.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await busy(server):  # noqa: ASYNC110 -- a server tells only when it is asked
                await asyncio.sleep(0.1)
    return parts


async def busy(server: Server) -> bool:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
        text = (await client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
    assert lines
    return any(float(line.split()[-1]) > 0 for line in lines)


def test_an_endless_chat_arrives_token_by_token_through_a_reload(nginx: Nginx, patched: Server) -> None:
    parts = asyncio.run(waiting_parts(nginx, patched))

    # Ten parts are here, of an answer that has not ended: nothing on the way waits for its end.
    assert len(parts) == 10
    assert all(json.loads(part.removeprefix("data: "))["choices"] for part in parts)


def test_refusals_pass_as_they_are(nginx: Nginx) -> None:
    answer = httpx.post(
        f"{nginx.url}/v1/chat/completions", json=CHAT, headers={"X-Vlinders-Priority": "high"}, timeout=60
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Vlinders-Priority"
