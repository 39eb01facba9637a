"""What reaches a Sentry, a small one that listens here: where errors happened, and no secret."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sentry_sdk

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.logs import request_fields
from vllm_vlinders.serving.error_reports import start
from vllm_vlinders.settings import TracingSettings


class Sentry:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        received: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                zipped = self.headers.get("Content-Encoding") == "gzip"
                received.append((gzip.decompress(body) if zipped else body).decode())
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.received = received
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self.server.server_port}/1"

    def events(self) -> list[dict[str, Any]]:
        sentry_sdk.flush(timeout=30)
        lines = [json.loads(line) for text in self.received for line in text.splitlines() if line]
        return [line for line in lines if "level" in line]


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    yield sentry
    sentry_sdk.init()  # without a DSN nothing is sent any more
    request_fields.clear()
    sentry.server.shutdown()


def test_an_error_is_reported_without_what_was_asked(sentry: Sentry) -> None:
    start(TracingSettings(sentry_dsn=sentry.dsn))
    request_fields.append(lambda: {"request_id": "abc", "tenant": "acme"})
    prompt = "the secret prompt"  # a local variable of the frame that fails
    try:
        int(prompt)
    except ValueError:
        logging.getLogger("vllm.engine").exception("request %s failed", prompt)
    logging.getLogger("vllm.engine").info("no error: %s", prompt)

    (event,) = sentry.events()
    (error,) = event["exception"]["values"]
    assert (event["logger"], error["type"]) == ("vllm.engine", "ValueError")
    assert event["logentry"] == {"message": "request %s failed"}
    assert error["stacktrace"]["frames"][-1]["function"] == "test_an_error_is_reported_without_what_was_asked"
    assert event["tags"] == {"request_id": "abc"}
    assert "secret prompt" not in "".join(sentry.received)


def test_a_message_that_was_put_together_before_it_was_logged_is_not_sent(sentry: Sentry) -> None:
    start(TracingSettings(sentry_dsn=sentry.dsn))
    prompt = "the secret prompt"
    logging.getLogger("vllm.engine").error(f"request {prompt} failed")  # noqa: G004 -- as vLLM does

    (event,) = sentry.events()
    assert re.fullmatch(rf"vllm\.engine {re.escape(__file__)}:\d+", event["logentry"]["message"])
    assert "secret" not in "".join(sentry.received)


def test_of_what_asyncio_says_the_beginning_is_sent(sentry: Sentry) -> None:
    start(TracingSettings(sentry_dsn=sentry.dsn))

    def fail(prompt: str) -> None:
        raise ValueError(prompt)

    async def fail_in_a_task() -> None:
        fail("the secret prompt of a task")

    async def main() -> None:
        task = asyncio.create_task(fail_in_a_task())
        asyncio.get_running_loop().call_soon(fail, "the secret prompt of a callback")
        await asyncio.sleep(0.01)
        assert task.done()

    asyncio.run(main())
    gc.collect()  # only then it is clear that nobody asks for the task's exception

    messages = {event["logentry"]["message"] for event in sentry.events()}
    name = test_of_what_asyncio_says_the_beginning_is_sent.__qualname__
    assert messages == {"Task exception was never retrieved", f"Exception in callback {name}."}
    assert "secret" not in "".join(sentry.received)


def test_nothing_is_reported_without_a_dsn(sentry: Sentry) -> None:
    start(TracingSettings())
    logging.getLogger("vllm.engine").error("failed")

    assert sentry.events() == []


def test_what_is_no_dsn_is_named_and_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        start(TracingSettings(sentry_dsn="secret-rubbish"))
    assert str(caught.value) == "tracing.sentry_dsn: not a DSN of Sentry"
