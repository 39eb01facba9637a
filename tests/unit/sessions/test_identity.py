from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from vllm_vlinders.request_context import current_request
from vllm_vlinders.scheduling.tags import (
    SessionTag,
    Tags,
    decode,
    encode,
    encode_session,
    session_in,
    without_session,
)
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.sessions.identity import prefix_of, session_hash
from vllm_vlinders.settings import active_settings

IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=256)


@given(IDS, IDS, IDS)
def test_equal_ids_of_two_tenants_are_two_sessions(tenant: str, other: str, session: str) -> None:
    assert session_hash(tenant, session) == session_hash(tenant, session)
    assert (session_hash(tenant, session) == session_hash(other, session)) == (tenant == other)


@given(IDS, IDS)
def test_the_session_crosses_beside_the_other_tags(tenant: str, name: str) -> None:
    tag = SessionTag(session_hash(tenant, name), tenant)
    headers = encode_session(tag, encode(Tags("t", 1.5), {"traceparent": "x"}))

    assert session_in(headers) == tag
    assert decode(without_session(headers)) == (Tags("t", 1.5), {"traceparent": "x"})


async def show(request: Request) -> JSONResponse:
    context = current_request.get()
    assert context is not None
    return JSONResponse({"session": context.session, "body": (await request.body()).decode()})


def client() -> TestClient:
    app = Starlette(routes=[Route("/v1/chat/completions", show, methods=["POST"])])
    app.add_middleware(Pipeline)
    return TestClient(app)


@pytest.fixture(autouse=True)
def fresh_settings() -> Any:
    active_settings.cache_clear()
    yield
    active_settings.cache_clear()


def ask(body: Any = None, **headers: str) -> Any:
    return client().post("/v1/chat/completions", json={} if body is None else body, headers=headers)


def test_the_header_wins_over_the_body_and_the_body_is_left_whole() -> None:
    body = {"model": "m", "session_id": "from-body"}

    assert ask(body, **{"x-session-id": "from-header"}).json()["session"] == "from-header"
    answer = ask(body).json()
    assert answer["session"] == "from-body"
    assert answer["body"].replace(" ", "") == '{"model":"m","session_id":"from-body"}'
    assert ask({"model": "m", "session_id": ""}).json()["session"] is None
    assert ask({"model": "m"}).json()["session"] is None


@pytest.mark.parametrize("bad", ["x" * 257, "a\tb", "caf\xe9"])
def test_other_ids_are_answered_with_400(bad: str) -> None:
    for answer in (
        client().post("/v1/chat/completions", json={}, headers=[(b"x-session-id", bad.encode("latin-1"))]),
        ask({"session_id": bad}),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_session"
        assert "1 to 256" in answer.json()["error"]["message"]


def test_a_session_given_twice_is_answered_with_400() -> None:
    twice = [("X-Session-Id", "a"), ("X-Session-ID", "b")]
    answer = client().post("/v1/chat/completions", json={}, headers=twice)

    assert answer.status_code == 400
    assert "2 times" in answer.json()["error"]["message"]


def test_the_places_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINDERS_SESSIONS__KEYS", "[header:X-User, body:conversation, body:user]")

    assert ask({"user": "u"}, **{"x-session-id": "unread"}).json()["session"] == "u"
    assert ask({"user": "u", "conversation": {"id": "c"}}).json()["session"] == "c"
    assert ask({"user": "u"}, **{"x-user": "h"}).json()["session"] == "h"


def test_a_body_that_is_no_json_is_left_to_vllm() -> None:
    answer = client().post("/v1/chat/completions", content=b'{"session_id": ', headers={"content-type": "x"})

    assert answer.json() == {"session": None, "body": '{"session_id": '}


def test_turned_off_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINDERS_SESSIONS__ENABLED", "false")

    assert ask({"session_id": "x"}, **{"x-session-id": "\t"}).json()["session"] is None


def test_a_conversation_is_known_by_its_beginning_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINDERS_SESSIONS__DERIVE_FROM_PREFIX", "true")
    first = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    later = [*first, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "and now?"}]
    other = [first[0], {"role": "user", "content": "good morning"}]

    one, two, three = (ask({"messages": messages}).json()["session"] for messages in (first, later, other))
    assert one == two != three
    assert ask({"messages": later}, **{"x-session-id": "named"}).json()["session"] == "named"
    assert ask({"prompt": "no messages"}).json()["session"] is None


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_body_breaks_the_derivation(messages: Any) -> None:
    assert prefix_of({"messages": messages}) is None or isinstance(messages, list)
