"""Log lines: where they go, what they carry, and their level while the server runs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from vllm_vlinders import sinks
from vllm_vlinders.errors import SettingsError
from vllm_vlinders.logs import Level, make_logger, request_fields, the_level
from vllm_vlinders.serving import request_logs
from vllm_vlinders.serving.management import management_routes
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.settings import LoggingSettings, active_settings
from vllm_vlinders.sinks import FileSink

LINES = 3000


def write_lines(path: Path, number: int) -> None:
    sinks._LOOK_SECONDS = 0.0
    sink = FileSink(path, most_bytes=20_000, kept=1000)
    for count in range(LINES):
        sink.write(f"{number} {count} " + "x" * 40)


def test_processes_share_a_file_that_rotates_and_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_lines, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    files = sorted(tmp_path.iterdir())
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(files) > 3
    assert sorted(tuple(map(int, line.split()[:2])) for line in lines) == [
        (number, count) for number in range(3) for count in range(LINES)
    ]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_no_more_old_files_are_kept_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_LOOK_SECONDS", 0.0)
    sink = FileSink(tmp_path / "log", most_bytes=100, kept=2)
    for count in range(50):
        sink.write(f"{count} " + "x" * 60)

    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert "49 " in (tmp_path / "log").read_text() + (tmp_path / "log.1").read_text()


def test_a_file_that_is_moved_away_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_LOOK_SECONDS", 0.0)
    sink = FileSink(tmp_path / "log")
    sink.write("one")
    (tmp_path / "log").rename(tmp_path / "old")
    sink.write("two")

    assert [(tmp_path / name).read_text() for name in ("old", "log")] == ["one\n", "two\n"]


def test_a_file_that_cannot_be_renamed_is_written_on_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_LOOK_SECONDS", -1.0)
    monkeypatch.setattr(Path, "rename", Mock(side_effect=PermissionError))
    writers = [FileSink(tmp_path / "log", most_bytes=10) for _ in range(2)]

    def write() -> None:
        for count in range(6):
            writers[count % 2].write(f"line {count}")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(timeout=30)

    assert (tmp_path / "log").read_text().splitlines() == [f"line {count}" for count in range(6)]


def test_a_level_that_one_process_sets_counts_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_vlinders.logs._LOOK_SECONDS", 0.0)
    one, other = (Level("info", tmp_path / "level") for _ in range(2))
    heard: list[str] = []
    other.changed.append(heard.append)

    one.set("debug")
    one.set("error")
    other.follow()
    other.follow()

    assert (one.name, other.name, heard) == ("error", "error", ["error"])
    with pytest.raises(SettingsError, match="debug, info, warning, error"):
        one.set("loud")


def settings_for(tmp_path: Path, **more: Any) -> LoggingSettings:
    return LoggingSettings(format="json", application=tmp_path / "app", errors=tmp_path / "errors", **more)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_errors_go_to_their_file_too_and_the_level_counts(tmp_path: Path) -> None:
    log = make_logger(settings_for(tmp_path))
    log.debug("not this")
    log.info("small")
    log.error("great")

    assert [line["event"] for line in lines_of(tmp_path / "app")] == ["small", "great"]
    assert [line["event"] for line in lines_of(tmp_path / "errors")] == ["great"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="logging: .*nowhere"):
        make_logger(LoggingSettings(application=tmp_path / "nowhere" / "log")).info("x")


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[logging.Logger]:
    """A logger set up as vLLM's is, and lines of requests written to a file."""
    monkeypatch.setenv("VLINDERS_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("VLINDERS_LOGGING__REQUESTS", str(tmp_path / "requests"))
    monkeypatch.setenv("VLINDERS_LOGGING__ERRORS", str(tmp_path / "errors"))
    monkeypatch.setenv("VLINDERS_SCHEDULER__TRUST_TENANT_HEADER", "true")
    active_settings.cache_clear()
    the_level.cache_clear()
    logger = logging.getLogger("vllm")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [logging.FileHandler(tmp_path / "vllm")], False
    logger.setLevel("INFO")
    logger.handlers[0].setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    monkeypatch.setattr(request_logs, "_LOGGERS", ("vllm",))
    monkeypatch.setattr(request_logs, "_installed", False)
    request_logs.install()
    yield logger
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])
    request_fields.clear()


def call(app: Any, number: int = 1) -> None:
    headers = [(b"x-vlinders-tenant", b"acme"), (b"x-session-id", b"secret-session")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        pass

    async def calls() -> None:
        await asyncio.gather(*(Pipeline(app)(dict(scope), receive, send) for _ in range(number)))

    asyncio.run(calls())


def test_every_line_of_a_request_says_whose_it_is(foreign: logging.Logger, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        foreign.info("begin %s", 1)
        await asyncio.sleep(0)
        make_logger(settings_for(tmp_path)).warning("ours")
        try:
            1 / 0  # noqa: B018 -- the error is the point
        except ZeroDivisionError:
            foreign.exception("failed")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    foreign.info("outside")
    call(app, number=3)
    foreign.info("outside")

    requests = lines_of(tmp_path / "requests")
    ids = {line["request_id"] for line in requests}
    assert len(ids) == 3
    for file in ("app", "errors"):
        lines = [line for line in lines_of(tmp_path / file) if "ZeroDivision" in str(line) or file == "app"]
        assert {line["request_id"] for line in lines} == ids
        assert {(line["tenant"], line["session"]) for line in lines} == {("acme", requests[0]["session"])}
    text = (tmp_path / "vllm").read_text()
    assert all(f"INFO begin 1 [request_id={name} tenant=acme" in text for name in ids)
    assert text.startswith("INFO outside\n")
    assert text.endswith("INFO outside\n")
    assert {(line["status"], line["path"]) for line in requests} == {(200, "/v1/completions")}
    assert "secret-session" not in text + json.dumps(requests)


def test_an_admin_sets_the_level_of_vllms_logger_too(foreign: logging.Logger) -> None:
    key = {"Authorization": "Bearer k"}
    client = TestClient(
        Starlette(routes=management_routes(dict, ["k"]), middleware=[Middleware(Pipeline)]),
        raise_server_exceptions=False,
    )

    assert client.post("/vlinders/logging", json={"level": "debug"}).status_code == 401
    assert client.post("/vlinders/logging", json={"level": "loud"}, headers=key).status_code == 400
    assert client.post("/vlinders/logging", content=b"[", headers=key).status_code == 400
    assert client.post("/vlinders/logging", json={"level": "error"}, headers=key).json() == {"level": "error"}
    assert client.get("/vlinders/logging", headers=key).json() == {"level": "error"}
    assert foreign.level == logging.ERROR


@pytest.mark.parametrize("form", ["json", "console"])
def test_lower_lines_of_vllm_are_written_once_an_admin_asks_for_them(
    foreign: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("VLINDERS_LOGGING__FORMAT", form)
    active_settings.cache_clear()
    monkeypatch.setattr(request_logs, "_installed", False)
    foreign.handlers = [logging.StreamHandler(io.StringIO())]
    foreign.handlers[0].setLevel("INFO")  # as vLLM's, by VLLM_LOGGING_LEVEL
    written: list[str] = []
    monkeypatch.setattr(request_logs.StderrSink, "write", lambda _self, line: written.append(line))
    request_logs.install()
    for level in ("error", "debug"):
        the_level().set(level)
    foreign.debug("a detail")

    if form == "console":
        written.append(foreign.handlers[0].stream.getvalue())  # type: ignore[attr-defined]
    assert "a detail" in "".join(written)
    assert "a detail" not in (tmp_path / "errors").read_text()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_that_cannot_be_made_harms_nobody(
    foreign: logging.Logger, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("VLINDERS_LOGGING__FORMAT", form)
    active_settings.cache_clear()
    monkeypatch.setattr(request_logs, "_installed", False)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    request_logs.install()

    foreign.error("%d requests", "many")


def test_nobody_sets_the_level_of_an_open_server(foreign: logging.Logger) -> None:
    routes = management_routes(dict, ())
    client = TestClient(
        Starlette(routes=routes, middleware=[Middleware(Pipeline)]), raise_server_exceptions=False
    )

    assert client.post("/vlinders/logging", json={"level": "debug"}).status_code == 403
    assert client.get("/vlinders/logging").json() == {"level": "info"}
