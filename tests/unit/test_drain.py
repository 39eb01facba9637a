"""A server that is asked to stop: real uvicorn, real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from vllm_vlinders.serving import drain as module
from vllm_vlinders.serving.drain import Drain, end_requests
from vllm_vlinders.serving.pipeline import Pipeline

PATIENCE_SECONDS = 60


class Site:
    """A served application whose streams end when they are told to."""

    def __init__(self, loop: str) -> None:
        self.release = asyncio.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.shared = self.socket.dup()  # as where several API servers share one listening socket
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        routes = [Route("/stream", self._stream), Route("/", lambda _request: PlainTextResponse("here"))]
        self.app = FastAPI(routes=routes, openapi_url=None)
        self.app.add_middleware(Pipeline)
        self.server = uvicorn.Server(uvicorn.Config(self.app, loop=loop, log_level="warning"))
        self.app.state.server = self.server
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    async def _stream(self, _request: Request) -> StreamingResponse:
        async def parts():
            yield "first "
            await self.release.wait()
            yield "last"

        return StreamingResponse(parts())

    def let_streams_end(self) -> None:
        self.server.servers[0].get_loop().call_soon_threadsafe(self.release.set)


@pytest.fixture(params=["asyncio", "uvloop"])
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    fresh = Drain()
    monkeypatch.setattr(module, "drain", fresh)
    monkeypatch.setattr("vllm_vlinders.serving.pipeline.drain", fresh)
    pytest.importorskip(request.param)
    site = Site(request.param)
    monkeypatch.setattr(module, "_app", site.app)
    site.thread.start()
    until(lambda: site.server.started)
    yield site
    site.let_streams_end()
    site.server.should_exit = True
    site.thread.join(PATIENCE_SECONDS)
    site.shared.close()


def until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refuses(site: Site) -> bool:
    try:
        with httpx.Client() as client:
            return client.get(site.url).status_code == 503
    except httpx.TransportError:
        return True


def closed(site: Site) -> bool:
    """Tell whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))).close()
    except ConnectionRefusedError:
        return True
    return False


def test_running_requests_end_and_new_ones_find_a_closed_door(site: Site) -> None:
    with ThreadPoolExecutor() as pool, httpx.stream("GET", f"{site.url}/stream", timeout=60) as answer:
        parts = answer.iter_text()
        assert next(parts) == "first "

        ended = pool.submit(end_requests, PATIENCE_SECONDS)
        until(lambda: refuses(site))
        until(lambda: closed(site))
        assert not ended.done()

        site.let_streams_end()
        assert "".join(parts) == "last"
        assert 0 < ended.result(PATIENCE_SECONDS) <= PATIENCE_SECONDS


def test_a_connection_that_waits_is_closed(site: Site) -> None:
    with httpx.Client() as client:
        assert client.get(site.url).text == "here"

        end_requests(PATIENCE_SECONDS)
        until(lambda: not site.server.server_state.connections)

        with pytest.raises(httpx.TransportError):  # it is gone, and there is no new one
            client.get(site.url)


def test_what_comes_on_a_connection_in_use_is_turned_away(site: Site) -> None:
    module.drain.begin()

    answer = httpx.get(site.url)

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
    assert module.drain.wait(PATIENCE_SECONDS)


def test_nobody_waits_for_longer_than_allowed(site: Site) -> None:
    with httpx.stream("GET", f"{site.url}/stream", timeout=60) as answer:
        parts = answer.iter_text()  # kept: the connection lasts as long as it does
        assert next(parts) == "first "
        assert end_requests(0.05) == 0
        assert module.drain.active == 1


def test_without_requests_nobody_waits(site: Site) -> None:
    assert end_requests(PATIENCE_SECONDS) > PATIENCE_SECONDS / 2
