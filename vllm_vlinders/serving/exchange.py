"""One request and its answer, as the stages of the pipeline see them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.serving.meter import Meter

if TYPE_CHECKING:  # the engine core imports this module, and never `auth`
    from vllm_vlinders.auth.roles import Grant

CLIENT_LEFT, NO_ANSWER = 499, 500

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Answerer = Callable[[ASGIApp, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Exchange:
    """What a stage reads and changes.

    Attributes:
        scope: the ASGI scope of the request; a stage may change its headers.
        context: what is known of the request; a stage puts a new one in its place.
        receive: where the request's body comes from; a stage that reads it puts a replay in its place.
        response_headers: sent with the answer, whoever gives it. Names in lower case.
        may_be_refused: whether the request may still be turned away after the stages; the headers of
            the answer then wait for its first body part.
        refusal: what to answer in place of vLLM's answer, if that has not begun.
        grant: who calls and what they may do; None where no credential is needed.
        payload: the JSON object in the body, as far as a stage has read one.
        meter: what the request asks of the engine and gets.
        at_door: called with the id of each request that goes into the engine, before it does; raises
            `RequestError` where it may not.
        answerer: what answers in place of vLLM's application, which it is given; None: that application.
        status: the HTTP status of the answer, once it has begun.
        span: the OpenTelemetry span of the request; None where requests are not traced.
        begun: the moment (of ``time.perf_counter``) at which the request came.
        answered: the moment (of ``time.perf_counter``) at which the whole answer had been given, or None.
        finished: whether the answer has ended; a background response works on.
        on_finish: called when the answer has ended, however it ended, in the order they were added.
    """

    scope: Scope
    context: RequestContext
    receive: Receive
    response_headers: list[Header] = field(default_factory=list)
    may_be_refused: bool = False
    refusal: RequestError | None = None
    grant: Grant | None = None
    payload: dict[str, Any] | None = None
    meter: Meter = field(default_factory=Meter)
    at_door: list[Callable[[str], None]] = field(default_factory=list)
    answerer: Answerer | None = None
    status: int | None = None
    span: Any = None
    begun: float = field(default_factory=time.perf_counter)
    answered: float | None = None
    finished: bool = False
    on_finish: list[Callable[[], None]] = field(default_factory=list)

    def header(self, name: str) -> list[str]:
        """Return all values of the request header `name`, any case, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]

    @property
    def method(self) -> str:
        """The HTTP method; ``WEBSOCKET`` for a WebSocket."""
        method: str = self.scope.get("method", "WEBSOCKET")
        return method

    @property
    def left(self) -> bool:
        """Whether the client closed the connection before the whole answer had been given."""
        moment = self.meter.client_left
        return moment is not None and moment <= (self.answered or time.perf_counter())

    @property
    def outcome(self) -> int:
        """The status that counts: 499 where the client left, 500 where nothing was answered."""
        return CLIENT_LEFT if self.left else self.status or NO_ANSWER

    @property
    def path(self) -> str:
        """The path that the router compares with its routes: decoded, without the ``root_path``."""
        path: str = self.scope.get("path", "")
        root: str = self.scope.get("root_path", "")
        if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
            return path[len(root) :]
        return path


current_exchange: ContextVar[Exchange | None] = ContextVar("vlinders_exchange", default=None)
"""The exchange being handled; None outside an HTTP request."""
