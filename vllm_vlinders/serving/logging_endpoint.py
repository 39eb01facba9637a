"""``/vlinders/logging``: the level of the log lines, of all processes of this server."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm_vlinders.errors import RequestError, SettingsError
from vllm_vlinders.logs import the_level


async def get_level(_request: Request) -> Response:
    """Answer the level."""
    level = the_level()
    level.follow()
    return JSONResponse({"level": level.name})


async def set_level(request: Request) -> Response:
    """Set the level; within a second or two all processes have it."""
    try:
        asked = json.loads(await request.body())["level"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RequestError('give {"level": "debug"}', param="level", code="invalid_value") from None
    try:
        the_level().set(str(asked))
    except SettingsError as error:
        raise RequestError(str(error), param="level", code="invalid_value") from None
    return await get_level(request)


ROUTES = (("/vlinders/logging", get_level, "GET"), ("/vlinders/logging", set_level, "POST"))
