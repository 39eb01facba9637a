"""Spans of a request in process: joined, honest about failures, and none where nothing is traced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk comes with vLLM")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vllm_vlinders.serving import tracing
from vllm_vlinders.serving.pipeline import Pipeline

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def call(app: Any, *headers: tuple[bytes, bytes], path: str = "/v1/chat/completions") -> None:
    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        pass

    with contextlib.suppress(ZeroDivisionError):
        asyncio.run(Pipeline(app)(scope, receive, send))


def test_vllm_is_shown_the_span_of_the_request(exporter: InMemorySpanExporter) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"traceparent")

    call(app, (b"traceparent", SENT.encode()), (b"x", b"y"))

    spans = {span.name: span for span in exporter.get_finished_spans()}
    ours = spans["POST /v1/chat/completions"]
    (shown,) = seen
    assert shown.decode() == f"00-{SENT[3:35]}-{ours.context.span_id:016x}-01"
    assert ours.parent is not None
    assert f"{ours.parent.span_id:016x}" == SENT[36:52]
    assert {"authenticate", "authorize", "admit", "tag"} <= spans.keys()


@pytest.mark.parametrize("sent", [b"", b"rubbish", b"00-0-0-00", b"\xff" * 40])
def test_a_traceparent_that_is_none_begins_a_new_trace(exporter: InMemorySpanExporter, sent: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    call(app, (b"traceparent", sent))

    assert len({span.context.trace_id for span in exporter.get_finished_spans()}) == 1
    assert [span.parent for span in exporter.get_finished_spans()].count(None) == 1


def test_a_failure_is_told_by_its_kind_alone(exporter: InMemorySpanExporter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("the prompt was: secret")

    call(app, path="/v1/completions")

    (ours,) = (span for span in exporter.get_finished_spans() if span.name.startswith("POST"))
    assert not ours.status.is_ok
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_nothing_is_traced_without_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])

    call(app, (b"traceparent", SENT.encode()))

    assert seen == [(b"traceparent", SENT.encode())]
