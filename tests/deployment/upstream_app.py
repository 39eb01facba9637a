"""A small streaming server: says its name, one part at a time, and only as far as it is told to."""

from __future__ import annotations

import asyncio
import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

NAME = os.environ["UPSTREAM_NAME"]
steps = asyncio.Semaphore(0)


async def who(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"name": NAME, "size": len(body), "headers": dict(request.headers)})


async def stream(_request: Request) -> StreamingResponse:
    async def parts():
        for number in range(3):
            await steps.acquire()
            yield f"data: {NAME} {number}\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


async def step(_request: Request) -> PlainTextResponse:
    steps.release()
    return PlainTextResponse("one part more")


async def refuse(request: Request) -> JSONResponse:
    return JSONResponse({"name": NAME}, status_code=int(request.path_params["status"]))


async def die(_request: Request) -> None:
    os._exit(1)


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(NAME + (await socket.receive_text()))
    await socket.close()


APP = Starlette(
    routes=[
        Route("/who", who, methods=["GET", "POST"]),
        Route("/stream", stream, methods=["POST"]),
        Route("/step", step, methods=["POST"]),
        Route("/refuse/{status}", refuse, methods=["POST"]),
        Route("/die", die, methods=["POST"]),
        WebSocketRoute("/v1/realtime", echo),
    ]
)

if __name__ == "__main__":
    uvicorn.run(APP, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
