"""Which headers go on with a request, and which come back with its answer."""

from __future__ import annotations

import aiohttp

from vllm_vlinders.routing.asked import MESSAGES
from vllm_vlinders.routing.upstreams import Upstream
from vllm_vlinders.scheduling.priority import HEADER as PRIORITY_HEADER
from vllm_vlinders.serving.exchange import Exchange, Header

_FORWARDED = (
    b"accept", b"content-type", b"user-agent", b"x-session-id", b"x-request-id", b"traceparent", b"tracestate",
    b"anthropic-version", b"anthropic-beta", b"openai-beta",
)  # fmt: skip
_RETURNED = frozenset({"content-type", "content-encoding", "cache-control", "retry-after", "x-request-id"})


def forwarded(exchange: Exchange, upstream: Upstream, priority: int) -> dict[str, str]:
    """Return the headers that go on: none that says who the caller is, least of all a credential."""
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in exchange.scope["headers"]
        if name in _FORWARDED
    }
    headers["Accept-Encoding"] = "identity"
    headers["Content-Type"] = "application/json"
    if upstream.settings.forward_priority:
        headers[PRIORITY_HEADER] = str(priority)
    if upstream.key is not None:
        headers["Authorization"] = f"Bearer {upstream.key}"
        if exchange.path == MESSAGES:
            headers["X-API-Key"] = upstream.key
    return headers


def returned(answer: aiohttp.ClientResponse) -> list[Header]:
    """Return the headers of an answer that the client gets."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in answer.headers.items()
        if name.lower() in _RETURNED
    ]
