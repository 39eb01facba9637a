"""docker/nginx/vlinders.conf, read by a real nginx in front of real servers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from proxy import PATIENCE_SECONDS, Nginx, available
from server import free_port

pytestmark = pytest.mark.skipif(not available(), reason="nginx is missing (Debian: apt-get install nginx)")
APP = Path(__file__).parent / "upstream_app.py"
SESSIONS = [f"session-{number}" for number in range(60)]


class Upstream:
    """One small server behind nginx."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, str(APP), str(self.port)]
            self.process = subprocess.Popen(command, env={**os.environ, "UPSTREAM_NAME": self.name})

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline
            assert self.process is None or self.process.poll() is None
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def step(self) -> None:
        httpx.post(f"http://{self.address}/step")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/who").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, Upstream]]:
    known = {name: Upstream(name) for name in ("a", "b", "c")}
    with ExitStack() as stack:
        for upstream in known.values():
            stack.callback(upstream.stop)
        yield known


@pytest.fixture
def upstreams(started: dict[str, Upstream]) -> dict[str, Upstream]:
    """Three servers that run, whatever the test before did to them."""
    for upstream in started.values():
        upstream.start()
    for upstream in started.values():
        upstream.wait()
    return started


@pytest.fixture
def nginx(tmp_path: Path, upstreams: dict[str, Upstream]) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path, [upstream.address for upstream in upstreams.values()])
    with proxy.running():
        yield proxy


def homes(nginx: Nginx) -> dict[str, str]:
    """Return which server answers each session; by new connections, as a reload ends those that are idle."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=nginx.url, timeout=60, limits=limits) as client:
        answers = {name: client.post("/who", headers={"X-Session-Id": name}) for name in SESSIONS}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {name: answer.json()["name"] for name, answer in answers.items()}


def test_nginx_accepts_it(tmp_path: Path) -> None:
    done = subprocess.run(
        Nginx(tmp_path, ["127.0.0.1:1"]).command("-t"), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_a_session_stays_and_sessions_spread(nginx: Nginx) -> None:
    first = homes(nginx)

    assert homes(nginx) == first
    shares = Counter(first.values())
    assert set(shares) == {"a", "b", "c"}
    assert min(shares.values()) >= len(SESSIONS) / 10


def test_without_a_session_the_caller_decides(nginx: Nginx) -> None:
    def homes_of(header: str) -> list[str]:
        sent = [{header: f"Bearer key-{n}"} for n in range(30) for _ in range(2)]
        return [httpx.post(f"{nginx.url}/who", headers=headers).json()["name"] for headers in sent]

    for header in ("Authorization", "X-API-Key"):
        found = homes_of(header)
        assert found[::2] == found[1::2]
        assert len(set(found)) == 3
    assert len({httpx.post(f"{nginx.url}/who").json()["name"] for _ in range(9)}) == 1


def test_a_dead_server_moves_its_sessions_alone_and_they_return(
    nginx: Nginx, upstreams: dict[str, Upstream]
) -> None:
    before = homes(nginx)
    upstreams["b"].stop()

    without = homes(nginx)  # asserts that each request is answered

    assert "b" not in without.values()
    stayed = {name for name in SESSIONS if before[name] != "b"}
    assert {name: without[name] for name in stayed} == {name: before[name] for name in stayed}
    assert homes(nginx) == without

    upstreams["b"].start()
    upstreams["b"].wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while homes(nginx) != before:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_server_that_dies_under_a_request_does_not_lose_it(
    nginx: Nginx, upstreams: dict[str, Upstream]
) -> None:
    answer = httpx.post(f"{nginx.url}/die", headers={"X-Session-Id": "x"}, timeout=60)

    # All three die of it, one after the other: the third attempt is the last.
    assert answer.status_code == 502
    assert [u.process.wait(PATIENCE_SECONDS) for u in upstreams.values() if u.process] == [1, 1, 1]


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_an_answer(nginx: Nginx, status: int) -> None:
    before = homes(nginx)
    headers = {"X-Session-Id": SESSIONS[0]}

    answers = [httpx.post(f"{nginx.url}/refuse/{status}", headers=headers) for _ in range(5)]

    assert {answer.status_code for answer in answers} == {status}
    assert {answer.json()["name"] for answer in answers} == {before[SESSIONS[0]]}
    assert homes(nginx) == before


def test_parts_pass_as_they_come_and_through_a_reload(nginx: Nginx, upstreams: dict[str, Upstream]) -> None:
    home = upstreams[homes(nginx)[SESSIONS[0]]]
    headers = {"X-Session-Id": SESSIONS[0]}
    with httpx.stream("POST", f"{nginx.url}/stream", headers=headers, timeout=60) as answer:
        parts = answer.iter_text()
        home.step()
        assert next(parts) == f"data: {home.name} 0\n\n"  # the next part does not exist yet
        home.step()
        assert next(parts) == f"data: {home.name} 1\n\n"
        nginx.reload()
        assert homes(nginx)[SESSIONS[0]] == home.name
        home.step()
        assert next(parts) == f"data: {home.name} 2\n\n"
        assert next(parts, "") == ""


def test_a_server_that_is_added_takes_sessions_and_moves_no_others(
    nginx: Nginx, upstreams: dict[str, Upstream]
) -> None:
    before = homes(nginx)
    new = Upstream("d")
    try:
        new.start()
        new.wait()
        nginx.configure([*(upstream.address for upstream in upstreams.values()), new.address])
        nginx.reload()
        nginx.until_replaced()
        after = homes(nginx)
    finally:
        new.stop()

    moved = {name for name in SESSIONS if after[name] != before[name]}
    assert {after[name] for name in moved} == {"d"}


def test_a_large_body_arrives_whole(nginx: Nginx) -> None:
    size = 5 * 2**20
    assert httpx.post(f"{nginx.url}/who", content=b"x" * size, timeout=60).json()["size"] == size


def test_what_only_the_inside_may_say_is_left_out(nginx: Nginx) -> None:
    sent = {"X-Vlinders-Tenant": "acme", "X-Data-Parallel-Rank": "1", "X-Vlinders-Priority": "9"}

    seen = httpx.post(f"{nginx.url}/who", headers=sent).json()["headers"]

    assert "x-vlinders-tenant" not in seen
    assert "x-data-parallel-rank" not in seen
    assert seen["x-vlinders-priority"] == "9"


def test_metrics_of_some_server_are_nobodys(nginx: Nginx) -> None:
    assert httpx.get(f"{nginx.url}/metrics").status_code == 404


def test_a_websocket_passes(nginx: Nginx) -> None:
    with connect(nginx.url.replace("http", "ws") + "/v1/realtime") as socket:
        socket.send("!")
        assert socket.recv() in ("a!", "b!", "c!")


def test_the_log_holds_no_credential(nginx: Nginx) -> None:
    httpx.post(f"{nginx.url}/who?key=secret-1", headers={"Authorization": "Bearer secret-2"})

    nginx.until_logged('"POST /who" 200')
    assert "secret" not in nginx.access_log
