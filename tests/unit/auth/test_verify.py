"""The proof that a server is closed finds what is open, over a real connection."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from vllm_vlinders.cli import main


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def verify(capsys: Any, *arguments: str) -> tuple[int, Any]:
    code = main(["verify", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_closed_server_is_proven_closed(
    make_site: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    monkeypatch.setenv("ADMIN_KEY", site.key(role="admin"))
    monkeypatch.setattr(site, "reached", [])
    with served(site.app) as url:
        code, report = verify(capsys, url)
        assert report["findings"] == []
        assert (code, report["closed"]) == (0, True)
        assert report["requests"] > 200
        assert site.reached == []
        code, report = verify(capsys, url, "--key", "env:ADMIN_KEY")
        assert report["findings"] == []
        monkeypatch.setattr(site.access.directory, "status", lambda: {"store": "the disk is gone"})
        code, report = verify(capsys, url, "--key", "env:ADMIN_KEY")
        assert (code, report["findings"][0]["found"]) == (1, "the disk is gone")
        monkeypatch.setenv("ADMIN_KEY", site.key(role="user"))
        code, report = verify(capsys, url, "--key", "env:ADMIN_KEY")
        assert (code, report["findings"][0]["found"]) == (1, "403")


def test_one_open_route_is_found(make_site: Any, capsys: Any) -> None:
    site = make_site()

    async def hole(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("open")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside = Starlette(routes=[Route("/invocations", hole, methods=["POST"])])
        leaky = scope["type"] == "http" and scope["path"] == "/invocations"
        await (inside if leaky else site.app)(scope, receive, send)

    with served(app) as url:
        code, report = verify(capsys, url)
    assert code == 1
    assert {"request": "GET /invocations", "found": "405", "expected": "401"} in report["findings"]


def test_an_open_server_a_dead_one_and_wrong_usage(capsys: Any) -> None:
    with served(Starlette()) as url:
        code, report = verify(capsys, url)
        assert code == 1
        assert len(report["findings"]) > 200
    code, report = verify(capsys, url)
    assert (code, report["findings"][0]["request"]) == (1, "any")
    assert main(["verify", url, "--key", "vk_literal"]) == 2
    assert "vk_literal" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["verify", "not a url"])
    assert caught.value.code == 2
