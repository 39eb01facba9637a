"""The endpoints under ``/vlinders``: what operators ask of a running server."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vllm_vlinders.errors import KeyRequestError, RequestError, StoreError
from vllm_vlinders.serving import key_endpoints, logging_endpoint, route_endpoint, usage_endpoint
from vllm_vlinders.serving.access import active_access
from vllm_vlinders.serving.exchange import current_exchange
from vllm_vlinders.serving.session_endpoint import sessions_handler

_LOOKING = ("/vlinders/route",)
"""What a POST asks, and does not change."""
Handler = Callable[[Request], Awaitable[Response]]


def management_routes(status: Callable[[], Any], keys: Sequence[str]) -> list[Route]:
    """Return the management routes.

    Args:
        status: returns what ``GET /vlinders/status`` answers, JSON-serialisable.
        keys: the server's API keys, as vLLM was given them; empty means an open server, unless the
            settings have a section ``auth``.
    """
    digests = [_digest(key) for key in keys]

    async def get_status(_request: Request) -> Response:
        access = active_access()
        more = {} if access is None else {"auth": access.status()}
        return JSONResponse({**status(), **more})

    routes = [
        ("/vlinders/status", get_status, "GET"),
        ("/vlinders/sessions", sessions_handler(status), "GET"),
        *key_endpoints.ROUTES,
        *usage_endpoint.ROUTES,
        *route_endpoint.ROUTES,
        *logging_endpoint.ROUTES,
    ]
    return [
        Route(
            path,
            _guarded(handler, digests, changes=method != "GET" and path not in _LOOKING),
            methods=[method],
            include_in_schema=False,
        )
        for path, handler, method in routes
    ]


def _guarded(handler: Handler, digests: Sequence[bytes], *, changes: bool) -> Handler:
    """Return `handler` for those who may manage, with its refusals answered.

    On an open server anybody may look, and nobody may change anything.
    """

    async def guarded(request: Request) -> Response:
        if active_access() is not None:
            exchange = current_exchange.get()
            if exchange is None or exchange.grant is None:
                raise RequestError("management needs a credential", status=401, code="missing")
            exchange.grant.check_path(exchange.path)
        elif digests and not _holds_key(request, digests):
            raise RequestError(
                "this endpoint needs one of the server's API keys: 'Authorization: Bearer …'",
                status=401,
                code="invalid_api_key",
            )
        elif changes and not digests:
            message = "nobody may change this on an open server: set auth, or give --api-key"
            raise RequestError(message, status=403, kind="permission_error", code="open_server")
        try:
            return await handler(request)
        except KeyRequestError as error:
            status, code = (404, "not_found") if error.missing else (400, "invalid_value")
            raise RequestError(str(error), status=status, param=error.param, code=code) from None
        except StoreError as error:
            raise RequestError(str(error), status=503, kind="server_error", code="store_down") from None

    return guarded


def _holds_key(request: Request, digests: Sequence[bytes]) -> bool:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    given = _digest(key.strip())
    return sum(hmac.compare_digest(given, digest) for digest in digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
