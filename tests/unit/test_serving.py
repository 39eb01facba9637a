from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from vllm_vlinders.errors import RequestError
from vllm_vlinders.request_context import RequestContext, current_request
from vllm_vlinders.serving.management import management_routes
from vllm_vlinders.serving.pipeline import Pipeline


async def show(_request: Request) -> JSONResponse:
    context = current_request.get()
    assert context is not None
    return JSONResponse({"priority": context.priority, "id": context.request_id})


async def refuse(_request: Request) -> JSONResponse:
    raise RequestError("come back later", status=429, code="quota", headers={"Retry-After": "7"})


async def stream(_request: Request) -> StreamingResponse:
    async def parts() -> Any:
        for _ in range(3):
            context = current_request.get()
            yield f"{context.priority if context else 'lost'} "
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    context = current_request.get()
    await socket.send_text(str(context and context.priority))
    await socket.close()


def client(keys: tuple[str, ...] = ()) -> TestClient:
    app = Starlette(
        routes=[
            Route("/show", show),
            Route("/refuse", refuse),
            Route("/stream", stream),
            WebSocketRoute("/talk", talk),
        ]
    )
    app.router.routes.extend(management_routes(lambda: {"fine": True}, keys))
    app.add_middleware(Pipeline)
    return TestClient(app)


def test_the_context_reaches_the_endpoint_and_its_id_the_answer() -> None:
    answer = client().get("/show", headers={"X-Vlinders-Priority": "90"})
    assert answer.json() == {"priority": 90, "id": answer.headers["X-Vlinders-Request-Id"]}
    assert client().get("/show").json()["priority"] is None


def test_the_context_lasts_as_long_as_a_stream() -> None:
    assert client().get("/stream", headers={"x-vlinders-priority": "7"}).text == "7 7 7 "


def test_requests_at_once_keep_their_own_contexts() -> None:
    app = client().app

    async def ask(priority: int) -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            answer = await http.get("/show", headers={"X-Vlinders-Priority": str(priority)})
            return int(answer.json()["priority"])

    async def ask_all() -> list[int]:
        return await asyncio.gather(*map(ask, range(50)))

    assert asyncio.run(ask_all()) == list(range(50))


@pytest.mark.parametrize("value", ["5.5", "abc", "1001", "-1"])
def test_a_bad_priority_is_answered_in_the_shape_of_openai(value: str) -> None:
    answer = client().get("/show", headers={"X-Vlinders-Priority": value})
    assert answer.status_code == 400
    assert "X-Vlinders-Request-Id" in answer.headers
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == "X-Vlinders-Priority"
    assert value in error["message"]
    assert "0 to 1000" in error["message"]


def test_two_priorities_are_refused() -> None:
    answer = client().get("/show", headers=[("X-Vlinders-Priority", "1"), ("X-Vlinders-Priority", "2")])
    assert answer.status_code == 400
    assert "given 2 times" in answer.text


def test_a_refusal_raised_deep_inside_is_answered_too() -> None:
    answer = client().get("/refuse")
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "quota"
    assert answer.headers["Retry-After"] == "7"
    assert "X-Vlinders-Request-Id" in answer.headers


def test_web_sockets_pass_the_stages_too() -> None:
    with client().websocket_connect("/talk", headers={"X-Vlinders-Priority": "5"}) as socket:
        assert socket.receive_text() == "5"
    with (
        pytest.raises(WebSocketDisconnect) as caught,
        client().websocket_connect("/talk", headers={"X-Vlinders-Priority": "many"}),
    ):
        pass
    assert caught.value.code == 1008


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30)), max_size=5), st.binary(max_size=10)
)
def test_no_header_crashes_the_pipeline(headers: list[tuple[bytes, bytes]], value: bytes) -> None:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [*headers, (b"x-vlinders-priority", value)]}
    asyncio.run(Pipeline(app)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] in (200, 400)
    json.loads(sent[1]["body"])
    assert current_request.get() is None


def test_lifespan_passes_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope)

    asyncio.run(Pipeline(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]


def test_status_is_open_on_an_open_server_and_needs_a_key_on_a_closed_one() -> None:
    assert client().get("/vlinders/status").json() == {"fine": True}
    closed = client(keys=("first", "second"))
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "first"},
        {"Authorization": "Bearer"},
    ):
        answer = closed.get("/vlinders/status", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert "wrong" not in answer.text
    for key in ("first", "second"):
        assert closed.get("/vlinders/status", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_context_is_frozen() -> None:
    with pytest.raises(AttributeError):
        RequestContext("id").priority = 5  # type: ignore[misc]
