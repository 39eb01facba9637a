"""A collector of OpenTelemetry traces: takes OTLP over HTTP, and keeps the spans."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

VARIABLES: dict[str, str | None] = {
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}
PATIENCE_SECONDS = 60


class Collector:
    """Listens on loopback until the process ends."""

    def __init__(self) -> None:
        spans: dict[str, list[Any]] = defaultdict(list)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                request = ExportTraceServiceRequest.FromString(self.rfile.read(length))
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            spans[span.trace_id.hex()].append(span)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._spans = spans
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Where traces are sent."""
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def trace(self, trace_id: str, names: set[str]) -> dict[str, Any]:
        """Return the spans of a trace by name, once those of `names` have come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not names <= {span.name for span in self._spans[trace_id]} and time.monotonic() < deadline:
            time.sleep(0.1)
        return {span.name: span for span in self._spans[trace_id]}


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}
