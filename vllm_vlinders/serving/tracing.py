"""OpenTelemetry spans of a request, joined to the caller's trace and to vLLM's own.

They go where vLLM's go: it makes the tracer provider when it is given ``--otlp-traces-endpoint``, and
without that flag there are none. The request's span is the child of the caller's ``traceparent``; vLLM is
shown a ``traceparent`` of the request's span, so that its ``llm_request`` becomes a child of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm_vlinders.auth.keys import redact
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.measure import is_work, model_of

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_TRACE_HEADERS = (b"traceparent", b"tracestate")
_ERROR = 500
_LONGEST = 200
_tracer: Any = None


def start() -> None:
    """Trace requests from now on: vLLM has made a tracer provider."""
    global _tracer  # noqa: PLW0603 -- one per process, by nature
    from opentelemetry import trace

    _tracer = trace.get_tracer("vllm_vlinders")


def stop() -> None:
    """Trace no more."""
    global _tracer  # noqa: PLW0603 -- one per process, by nature
    _tracer = None


def begin(exchange: Exchange) -> None:
    """Begin the span of a request that may make the model work."""
    if _tracer is None or not is_work(exchange):
        return
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    given = {name.decode(): (exchange.header(name.decode()) or [""])[0] for name in _TRACE_HEADERS}
    exchange.span = _tracer.start_span(
        f"{exchange.method} {redact(exchange.path)[:_LONGEST]}",
        context=propagator.extract(given),
        kind=SpanKind.SERVER,
        attributes={
            "http.request.method": exchange.method,
            "url.path": redact(exchange.path)[:_LONGEST],
            "vlinders.request_id": exchange.context.request_id,
        },
    )
    shown: dict[str, str] = {}
    propagator.inject(shown, context=set_span_in_context(exchange.span))
    kept = [header for header in exchange.scope["headers"] if header[0] not in _TRACE_HEADERS]
    shown_headers = [(name.encode(), value.encode()) for name, value in shown.items()]
    exchange.scope["headers"] = kept + shown_headers


@contextmanager
def step(exchange: Exchange, name: str) -> Iterator[Any]:
    """Give a step of the request a span of its own, which is yielded; None where nothing is traced.

    An exception that leaves the step marks its span as failed, without the text of it.
    """
    if exchange.span is None:
        yield None
        return
    from opentelemetry.trace import StatusCode, set_span_in_context

    span = _tracer.start_span(name, context=set_span_in_context(exchange.span))
    try:
        yield span
    except BaseException as error:
        span.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        span.end()


def end(exchange: Exchange) -> None:
    """End the span of a request, with what is known of it by now."""
    span = exchange.span
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    meter, context, status = exchange.meter, exchange.context, exchange.outcome
    operation, model = _OPERATIONS.get(exchange.path), model_of(exchange)
    asked = (exchange.payload or {}).get("model")
    found = {
        "http.response.status_code": status,
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": redact(asked)[:_LONGEST] if isinstance(asked, str) else model,
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": meter.prompt if model else None,
        "gen_ai.usage.output_tokens": meter.output if model else None,
        "vlinders.tenant": context.tenant,
        "vlinders.route": context.route,
        "vlinders.cached_tokens": meter.cached if model else None,
    }
    span.set_attributes({name: value for name, value in found.items() if value is not None})
    if operation and model:
        span.update_name(f"{operation} {model}")
    if status >= _ERROR:
        span.set_status(StatusCode.ERROR)
    span.end()
