"""One request and its answer, as the stages of the pipeline see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import RequestContext

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Exchange:
    """What a stage reads and changes.

    Attributes:
        scope: the ASGI scope of the request; a stage may change its headers.
        context: what is known of the request; a stage puts a new one in its place.
        response_headers: sent with the answer, whoever gives it. Names in lower case.
        may_be_refused: whether the engine core may turn the request away; the headers of the answer
            then wait for its first body part.
        refusal: what to answer in place of vLLM's answer, if that has not begun.
    """

    scope: Scope
    context: RequestContext
    response_headers: list[Header] = field(default_factory=list)
    may_be_refused: bool = False
    refusal: RequestError | None = None

    def header(self, name: str) -> list[str]:
        """Return all values of the request header `name`, any case, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]


current_exchange: ContextVar[Exchange | None] = ContextVar("vlinders_exchange", default=None)
"""The exchange being handled; None outside an HTTP request."""
