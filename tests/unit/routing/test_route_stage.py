"""The stage `route` in the real pipeline, in front of an application that says what reached it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import Served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.auth.roles import Grant
from vllm_vlinders.errors import SettingsError
from vllm_vlinders.logs import make_logger
from vllm_vlinders.request_context import current_request
from vllm_vlinders.routing import Classification, SemanticRouter, grammar
from vllm_vlinders.routing.asked import PATHS
from vllm_vlinders.routing.memory import SessionMemory
from vllm_vlinders.serving import stages
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.pipeline import Pipeline
from vllm_vlinders.serving.router import Routing, install_routing, open_routing
from vllm_vlinders.settings import LoggingSettings, RoleSettings, RoutingSettings, Settings

CHAT = "/v1/chat/completions"
MODELS = {"strong": {"cost": 0.03}, "cheap": {"cost": 0.002, "speed": "fast"}}


def classify(prompt: str) -> Classification:
    if prompt == "break":
        message = "broken on purpose"
        raise ArithmeticError(message)
    hard = "hard" in prompt
    return Classification("analysis" if hard else "simple_qa", 0.95 if hard else 0.05, {"analysis": 1.0})


async def answer(request: Request) -> JSONResponse:
    context = current_request.get()
    assert context is not None
    body = await request.body()
    return JSONResponse(
        {
            "body": body.decode(errors="replace"),
            "length": request.headers.get("content-length"),
            "route": context.route,
            "priority": context.default_priority,
        }
    )


def site(folder: Path, **section: Any) -> TestClient:
    models = section.pop("models", MODELS)
    given_settings = RoutingSettings.model_validate({"models": models, **section})
    router = SemanticRouter.of_server(given_settings, tuple(models), classify=classify)
    memory = SessionMemory(folder / "routes", sorted(router.models))
    install_routing(Routing(router, memory, make_logger(LoggingSettings())))
    app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path in (*PATHS, "/v1/embeddings")])
    app.add_middleware(Pipeline)
    return TestClient(app)


@pytest.fixture(autouse=True)
def no_router() -> Iterator[None]:
    yield
    install_routing(None)


def chat(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def reached(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return json.loads(response.json()["body"])


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat("hard")),
        ("/v1/completions", {"model": "auto", "prompt": "hard"}),
        ("/v1/responses", {"model": "auto", "input": "hard"}),
        ("/v1/messages", chat("hard", max_tokens=5)),
    ],
)
def test_auto_becomes_the_chosen_model_and_nothing_else_changes(
    path: str, body: dict[str, Any], tmp_path: Path
) -> None:
    client = site(tmp_path)
    for text, model, route in (("hard", "strong", "analysis"), ("easy", "cheap", "simple_question")):
        sent = json.loads(json.dumps(body).replace("hard", text))
        got = client.post(path, json=sent)
        assert reached(got) == {**sent, "model": model}
        assert int(got.json()["length"]) == len(got.json()["body"].encode())
        assert got.json()["route"] == route
        assert (got.headers["X-Vlinders-Model"], got.headers["X-Vlinders-Route"]) == (model, route)
        assert got.headers["X-Vlinders-Route-Reason"].startswith("score; category=")


def test_what_names_a_model_is_left_alone_byte_for_byte(tmp_path: Path) -> None:
    client = site(tmp_path)
    for body in (
        '{"model" : "cheap",  "x": "auto"}',
        '{"model":"other"}',
        '{"messages": []}',
        '["auto"]',
        "{",
    ):
        got = client.post(CHAT, content=body)
        assert (got.status_code, got.json()["body"]) == (200, body)
        assert "X-Vlinders-Model" not in got.headers
    body = '{"model" : "auto"}'
    assert client.post("/v1/embeddings", content=body).json()["body"] == body


def test_requirements_and_preferences_come_in_a_header(tmp_path: Path) -> None:
    client = site(tmp_path, tenants={"default": {}})

    def ask(value: str) -> Any:
        return client.post(CHAT, json=chat("easy"), headers={"X-Vlinders-Requirements": value})

    assert reached(ask("model=strong"))["model"] == "strong"
    assert ask("model=strong").headers["X-Vlinders-Route-Reason"].startswith("preference")
    assert reached(ask("quality=high, cost=high"))["model"] == "strong"
    for wrong in ("quality=best", "quality", "quality=high,quality=low", "price=low", "model=other", "="):
        got = ask(wrong)
        assert (got.status_code, got.json()["error"]["code"]) == (400, "invalid_requirements"), wrong


def test_a_route_shapes_the_request(tmp_path: Path) -> None:
    routes = [
        {
            "name": "brief",
            "when": {"prompt": {"contains": "brief"}},
            "models": ["cheap"],
            "parameters": {"temperature": 0.2},
            "system": "be brief",
            "request_priority": 77,
        }
    ]
    got = site(tmp_path, routes=routes).post(CHAT, json=chat("brief, please"))
    assert reached(got)["temperature"] == 0.2
    assert reached(got)["messages"][0] == {"role": "system", "content": "be brief"}
    assert got.json()["priority"] == 77


def test_a_decision_that_fails_lets_the_default_answer_and_is_counted(tmp_path: Path) -> None:
    before = count("vlinders_route_failures_total")
    got = site(tmp_path).post(CHAT, json=chat("break"))
    assert reached(got)["model"] == "strong"
    assert got.headers["X-Vlinders-Route-Reason"] == "failed"
    prefer = {"X-Vlinders-Requirements": "model=cheap"}
    assert reached(site(tmp_path).post(CHAT, json=chat("break"), headers=prefer))["model"] == "strong"
    assert count("vlinders_route_failures_total") == before + 2


def test_a_session_keeps_its_model_in_every_process(tmp_path: Path) -> None:
    def ask(client: TestClient, text: str, session: str) -> str:
        got = client.post(CHAT, json=chat(text), headers={"X-Session-Id": session})
        return str(reached(got)["model"])

    assert ask(site(tmp_path, session_margin=5), "easy", "s") == "cheap"
    again = site(tmp_path, session_margin=5)
    assert ask(again, "hard", "t") == "strong"
    assert ask(again, "hard", "s") == "cheap"


def test_a_shadow_decides_and_counts_and_does_not_act(tmp_path: Path) -> None:
    labels = {
        "policy": "first",
        "route": "simple_question",
        "model": "cheap",
        "reason": "score",
        "acted": "no",
    }
    before = count("vlinders_route_decisions_total", **labels)
    got = site(tmp_path, shadow=True).post(CHAT, json=chat("easy"))
    assert reached(got)["model"] == "strong"
    assert got.headers["X-Vlinders-Route-Reason"].startswith("shadow")
    assert count("vlinders_route_decisions_total", **labels) == before + 1


def test_a_share_of_sessions_goes_to_the_second_policy(tmp_path: Path) -> None:
    second = {"default_routes": False, "share": 0.5}
    client = site(tmp_path, second=second)
    compared = count("vlinders_route_second_total", first="cheap", second="strong")
    models = []
    for number in range(60):
        got = client.post(CHAT, json=chat("easy"), headers={"X-Session-Id": str(number)})
        models.append(reached(got)["model"])
    assert 10 < models.count("strong") < 50
    assert count("vlinders_route_second_total", first="cheap", second="strong") == compared + 60


@pytest.mark.parametrize(
    ("models", "expected"), [(["cheap"], "cheap"), (["strong"], "strong"), (["x"], None)]
)
def test_the_choice_never_leaves_what_the_role_may_use(
    models: list[str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def let_in(exchange: Exchange) -> None:
        exchange.grant = Grant(Principal("p", "acme", "role"), RoleSettings(models=tuple(models)))
        exchange.payload = json.loads((await exchange.receive())["body"])

    monkeypatch.setattr("vllm_vlinders.serving.pipeline.STAGES", (let_in, stages.route))
    client = site(tmp_path)
    for text in ("hard", "easy", "break"):
        got = client.post(CHAT, json=chat(text))
        if expected is None:
            assert (got.status_code, got.json()["error"]["code"]) == (403, "model_not_allowed")
        else:
            assert reached(got)["model"] == expected
    other = {"strong", "cheap"} - {expected}
    headers = {"X-Vlinders-Requirements": f"model={other.pop()}"}
    assert client.post(CHAT, json=chat("x"), headers=headers).status_code == 403


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PATHS), st.sampled_from(["messages", "prompt", "input"]), ODD)
def test_no_body_is_answered_with_500(tmp_path: Path, path: str, field: str, value: Any) -> None:
    body = json.dumps({"model": "auto", field: value})
    assert site(tmp_path).post(path, content=body).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe auto",
        b'{"model": "auto", "messages": [{"role": "user", "content": "\\ud800\\u0000"}]}',
        json.dumps(chat("x" * 10**6)).encode(),
        json.dumps({"model": "auto", "messages": [{"role": "user", "content": "x"}] * 10_000}).encode(),
        b'{"model": "auto", "messages": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model": "auto", "messages": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    ],
    ids=["empty", "binary", "surrogate", "1 MB", "10,000 messages", "deep", "too deep"],
)
def test_odd_bodies_are_passed_on_or_refused(content: bytes, tmp_path: Path) -> None:
    assert site(tmp_path).post(CHAT, content=content).status_code in (200, 400)


def test_an_encoder_elsewhere_is_asked_and_missed_without_harm(tmp_path: Path) -> None:
    asked: list[str] = []

    async def embed(request: Request) -> JSONResponse:
        texts = (await request.json())["input"]
        asked.extend(texts)
        rows = [[1.0, 0.0] if "refund" in text else [0.0, 1.0] for text in texts]
        return JSONResponse({"data": [{"index": n, "embedding": row} for n, row in enumerate(rows)]})

    there = Served(Starlette(routes=[Route("/v1/embeddings", embed, methods=["POST"])]))
    encoder = {"name": "openai", "url": f"{there.url}/v1", "model": "e"}
    routes = [{"name": "refunds", "utterances": ["a refund"], "models": ["strong"]}]
    client = site(tmp_path, encoder=encoder, routes=routes)
    for _ in range(2):
        got = client.post(CHAT, json=chat("refund please"))
        assert (reached(got)["model"], got.headers["X-Vlinders-Route"]) == ("strong", "refunds")
    assert reached(client.post(CHAT, json=chat("easy")))["model"] == "cheap"
    assert asked == ["a refund", "refund please", "easy"]
    there.stop()
    got = client.post(CHAT, json=chat("another"))
    assert (reached(got)["model"], got.headers["X-Vlinders-Route-Reason"]) == ("strong", "failed")
    with pytest.raises(SettingsError, match="routing.encoder"):
        site(tmp_path, encoder=encoder, routes=routes)


def test_nothing_is_left_to_load_for_the_first_request() -> None:
    grammar._grammar.cache_clear()
    settings = Settings.model_validate({"routing": {"models": MODELS}})
    open_routing(settings, tuple(MODELS))
    assert grammar._grammar.cache_info().currsize == len(grammar.GRAMMARS)
