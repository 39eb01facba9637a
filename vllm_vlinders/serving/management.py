"""The endpoints under ``/vlinders``: what operators ask of a running server."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vllm_vlinders.errors import RequestError
from vllm_vlinders.serving.pipeline import error_body


def management_routes(status: Callable[[], Any], keys: Sequence[str]) -> list[Route]:
    """Return the management routes.

    Args:
        status: returns what ``GET /vlinders/status`` answers, JSON-serialisable.
        keys: the server's API keys, as vLLM was given them; empty means an open server.
    """
    digests = [_digest(key) for key in keys]

    async def get_status(request: Request) -> Response:
        if digests and not _holds_key(request, digests):
            refusal = RequestError(
                "this endpoint needs one of the server's API keys: 'Authorization: Bearer …'",
                status=401,
                code="invalid_api_key",
            )
            return Response(error_body(refusal), refusal.status, media_type="application/json")
        return JSONResponse(status())

    return [Route("/vlinders/status", get_status, methods=["GET"])]


def _holds_key(request: Request, digests: Sequence[bytes]) -> bool:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    given = _digest(key.strip())
    return sum(hmac.compare_digest(given, digest) for digest in digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
