"""One request and its answer, as the stages of the pipeline see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from vllm_vlinders.request_context import RequestContext

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Exchange:
    """What a stage reads and changes.

    Attributes:
        scope: the ASGI scope of the request; a stage may change its headers.
        context: what is known of the request; a stage puts a new one in its place.
        response_headers: sent with the answer, whoever gives it. Names in lower case.
    """

    scope: Scope
    context: RequestContext
    response_headers: list[Header] = field(default_factory=list)

    def header(self, name: str) -> list[str]:
        """Return all values of the request header `name`, any case, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]
