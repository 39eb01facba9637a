"""Stopping without losing anyone: what runs ends, what comes is turned away."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from vllm_vlinders.errors import RequestError
from vllm_vlinders.logs import make_logger
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.settings import active_settings


class Drain:
    """The requests of one API server process, counted from their first stage to the end of the answer.

    `enter` and `leave` are called by the event loop, `end` by another thread. A request counts before
    it asks whether the server is draining, and `end` says so before it looks at the count: so either
    the request is turned away, or it is waited for.
    """

    def __init__(self) -> None:
        self.draining = False
        self.active = 0
        self._idle = threading.Event()

    def enter(self) -> None:
        """Count a request in."""
        self.active += 1

    def leave(self) -> None:
        """Count it out."""
        self.active -= 1
        if self.draining and not self.active:
            self._idle.set()

    def begin(self) -> None:
        """Turn away whoever comes from now on."""
        self.draining = True

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for all requests to end; tell whether they have."""
        return not self.active or self._idle.wait(seconds)


drain = Drain()
"""Of this process."""

_app: Any = None


def serve(app: Any) -> None:
    """Say which application this process serves."""
    global _app  # noqa: PLW0603 -- one application for each process, by nature
    _app = app


async def turn_away(_exchange: Exchange) -> None:
    """Refuse what comes on a connection that was open when the server began to drain.

    Raises:
        RequestError: the server is shutting down.
    """
    if drain.draining:
        raise RequestError(
            "this server is shutting down; send the request again, to reach another one",
            status=503,
            kind="server_error",
            code="shutting_down",
            headers={"Retry-After": "1", "Connection": "close"},
        )


def end_requests(timeout: float) -> float:
    """Close the server's door and wait until its requests have ended; called outside the event loop.

    Args:
        timeout: seconds to wait at most, vLLM's ``--shutdown-timeout``.

    Returns:
        The seconds that are left.
    """
    log = make_logger(active_settings().logging)
    start = time.monotonic()
    drain.begin()
    close_door(getattr(getattr(_app, "state", None), "server", None))
    log.info("draining", requests=drain.active, seconds=timeout, pid=os.getpid())
    ended = drain.wait(timeout)
    spent = time.monotonic() - start
    if ended:
        log.info("drained", seconds=round(spent, 1), pid=os.getpid())
    else:
        log.warning("requests are cut off: the time to drain is over", requests=drain.active, pid=os.getpid())
    return max(0.0, timeout - spent)


def close_door(server: Any) -> None:
    """Make a uvicorn server take no new connections, and close those that wait for a request.

    Its own shutdown does the same, and closes WebSockets too: those may go on for now. A listening
    socket that several processes share is closed for all of them, lest connections wait in its queue.
    """
    listeners = getattr(server, "servers", ())
    for listener in listeners:
        listener.get_loop().call_soon_threadsafe(_stop_listening, listener)
    for listener in listeners[:1]:
        listener.get_loop().call_soon_threadsafe(_close_idle, server)


def _stop_listening(listener: Any) -> None:
    copies = [socket.socket(fileno=os.dup(one.fileno())) for one in listener.sockets]
    listener.close()
    for copy in copies:
        with copy:
            copy.shutdown(socket.SHUT_RDWR)


def _close_idle(server: Any) -> None:
    for connection in list(server.server_state.connections):
        if hasattr(connection, "cycle"):  # HTTP: at once if idle, else after the answer
            connection.shutdown()
