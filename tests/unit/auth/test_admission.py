"""Quotas as callers meet them: headers, refusals, settlement."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from guarded_site import CHAT, bearer, body, engine, used
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vllm_vlinders.auth.principal import Principal
from vllm_vlinders.auth.quota.charge import Charge
from vllm_vlinders.auth.quota.plan import Amount, Plan, estimate, output_limit
from vllm_vlinders.serving import door
from vllm_vlinders.settings import PriceSettings, QuotaSettings, RoleSettings


def test_a_request_is_charged_with_what_it_used(make_site: Any) -> None:
    limits = {
        "tokens_per_minute": 1000,
        "tokens_per_day": 5000,
        "requests_per_minute": 10,
        "money_per_day": 1,
    }
    site = make_site(quotas={"tenants": {"acme": limits}, "prices": {"m": {"input": 100, "output": 1000}}})
    key = site.key()
    engine(site, prompt=20, output=5)
    answer = site.client.post(CHAT, json=body(), headers=bearer(key))
    assert answer.status_code == 200
    assert answer.headers["X-RateLimit-Limit-Tokens"] == "1000"
    assert 900 <= int(answer.headers["X-RateLimit-Remaining-Tokens"]) < 1000
    assert answer.headers["X-RateLimit-Remaining-Requests"] == "9"
    assert answer.headers["X-RateLimit-Reset-Requests"].endswith("s")
    assert used(site, key, "tokens_per_minute") == used(site, key, "tokens_per_day") == 25
    assert used(site, key, "money_per_day") == pytest.approx((20 * 100 + 5 * 1000) / 1e6)
    assert used(site, key, "requests_per_minute") == 1
    listed = site.client.get("/v1/models", headers=bearer(key))
    assert listed.headers["X-RateLimit-Remaining-Tokens"] == "975"


@pytest.mark.parametrize("left_out", [{}, {"model": ""}, {"model": None}, {"model": "alias"}, "a form"])
def test_money_is_counted_whatever_the_model_is_called(
    make_site: Any, monkeypatch: pytest.MonkeyPatch, left_out: Any
) -> None:
    monkeypatch.setattr("vllm_vlinders.serving.measure._base_model", "m")
    quotas = {"prices": {"m": {"input": 100, "output": 1000}}, "default_max_tokens": 50}
    site = make_site(quotas={**quotas, "tenants": {"acme": {"money_per_day": 0.06}}})
    headers = bearer(site.key())
    engine(site, prompt=20, output=50)
    unnamed = {name: value for name, value in body().items() if name != "model"}
    if left_out == "a form":
        kind = {"content-type": "multipart/form-data; boundary=x"}
        ask = {"content": json.dumps(unnamed), "headers": {**headers, **kind}}
    else:
        ask = {"json": {**unnamed, **left_out}, "headers": headers}
    answers = [site.client.post(CHAT, **ask) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["error"]["param"] == "money_per_day"
    assert used(site, headers["Authorization"][7:], "money_per_day") == pytest.approx(0.052)
    assert site.client.post(CHAT, json=body(), headers=headers).status_code == 429


@pytest.mark.parametrize("how", ["stream", "error", "refused"])
def test_whatever_the_end_the_reservation_is_settled(make_site: Any, how: str) -> None:
    site = make_site(quotas={"tenants": {"acme": {"tokens_per_minute": 1000, "concurrent_requests": 1}}})
    key = site.key()
    engine(site, raises=how == "error")
    for _ in range(3):
        headers = {**bearer(key), **({"X-Vlinders-Priority": "no"} if how == "refused" else {})}
        try:
            answer = site.client.post(CHAT, json=body(stream=how == "stream"), headers=headers)
            assert answer.status_code == (400 if how == "refused" else 200)
        except ValueError:
            assert how == "error"
    assert used(site, key, "tokens_per_minute") == (0 if how == "refused" else 75)
    assert used(site, key, "concurrent_requests") == 0


def test_what_the_engine_core_turns_away_is_charged_to_nobody(make_site: Any) -> None:
    limits = {"tokens_per_minute": 1000, "requests_per_minute": 9, "concurrent_requests": 1}
    site = make_site(quotas={"tenants": {"acme": limits}})
    key = site.key()
    engine(site, shed=True)
    answers = [site.client.post(CHAT, json=body(), headers=bearer(key)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert [used(site, key, limit) for limit in limits] == [0, 0, 0]


def test_the_refusal_names_the_limit_and_the_time(make_site: Any) -> None:
    site = make_site(quotas={"principals": {"default": {"requests_per_minute": 2}}})
    key = site.key(principal="bot")
    engine(site)
    for _ in range(2):
        assert site.client.post(CHAT, json=body(), headers=bearer(key)).status_code == 200
    answer = site.client.post(CHAT, json=body(), headers=bearer(key))
    assert answer.status_code == 429
    error = answer.json()["error"]
    assert error["message"].startswith("requests_per_minute of principal:bot: the limit is 2, 2 are used")
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 0 < int(answer.headers["Retry-After"]) <= 62
    assert answer.headers["X-RateLimit-Remaining-Requests"] == "0"
    assert len(site.reached) == 2
    assert site.client.get("/v1/models", headers=bearer(key)).status_code == 200
    other = site.key(principal="other")
    assert site.client.post(CHAT, json=body(), headers=bearer(other)).status_code == 200


@pytest.mark.parametrize(
    ("full", "asked"),
    [
        ({"concurrent_requests": 1}, {}),
        ({"money_per_day": 0.01}, {}),
        ({"tokens_per_day": 70}, {}),
        ({}, {"max_tokens": 5000}),
    ],
)
def test_a_refusal_tells_what_is_left_of_all_limits(make_site: Any, full: Any, asked: Any) -> None:
    limits = {"requests_per_minute": 10, "tokens_per_minute": 1000, **full}
    site = make_site(quotas={"tenants": {"acme": limits}, "prices": {"m": {"output": 150}}})
    key = bearer(site.key())
    engine(site, output=50)
    assert site.client.post(CHAT, json=body(), headers=key).status_code == 200
    if "concurrent_requests" in full:
        site.access.book._slots.reserve([Charge("tenant:acme", "concurrent_requests", 1, 1, 0)], 0)
    answer = site.client.post(CHAT, json=body(**asked), headers=key)
    assert answer.status_code == 429
    left = {name: answer.headers.get_list(f"X-RateLimit-Remaining-{name}") for name in ("Requests", "Tokens")}
    assert left == {"Requests": ["9"], "Tokens": ["0" if "tokens_per_day" in full else "930"]}
    assert answer.headers["X-RateLimit-Reset-Tokens"].endswith("s")


def test_what_can_never_fit_is_told_so(make_site: Any) -> None:
    site = make_site(quotas={"tenants": {"acme": {"tokens_per_minute": 100}}})
    key = site.key()
    answer = site.client.post(CHAT, json=body(max_tokens=500), headers=bearer(key))
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "request_too_large"
    assert "Retry-After" not in answer.headers


def test_the_door_knows_better_than_the_estimate(make_site: Any) -> None:
    """A prompt with more tokens than its letters let expect is refused before it runs, and costs nothing."""
    site = make_site(quotas={"tenants": {"acme": {"tokens_per_minute": 100, "requests_per_minute": 9}}})
    key = site.key()
    engine(site, prompt=80)
    answer = site.client.post(CHAT, json=body(words=1, max_tokens=30), headers=bearer(key))
    assert answer.status_code == 429
    assert "tokens_per_minute" in answer.text
    assert site.reached == []
    assert len(answer.headers.get_list("X-RateLimit-Remaining-Tokens")) == 1
    assert used(site, key, "tokens_per_minute") == used(site, key, "requests_per_minute") == 0
    assert site.client.post(CHAT, json=body(words=1, max_tokens=20), headers=bearer(key)).status_code == 200


def test_answers_without_a_limit_get_one(make_site: Any) -> None:
    roles = {"short": {"max_tokens": 40}, "narrow": {"max_context": 30}}
    site = make_site(
        roles=roles, quotas={"default_max_tokens": 64, "tenants": {"acme": {"tokens_per_minute": 9999}}}
    )
    limits = engine(site, prompt=20)
    without = {name: value for name, value in body().items() if name != "max_tokens"}
    for role in ("user", "short", "narrow"):
        assert site.client.post(CHAT, json=without, headers=bearer(site.key(role=role))).status_code == 200
    assert site.client.post(CHAT, json=body(max_tokens=99), headers=bearer(site.key())).status_code == 200
    assert limits == [64, 40, 10, 99]


@pytest.mark.parametrize(
    ("role", "payload", "param"),
    [
        ({"max_tokens": 40}, {"max_tokens": 41}, "max_tokens"),
        ({"max_tokens": 40}, {"max_tokens": 5, "max_completion_tokens": 41}, "max_completion_tokens"),
        ({"max_n": 2}, {"n": 3}, "n"),
        ({"max_context": 30}, {"max_tokens": 31}, "max_tokens"),
        ({"max_context": 20}, {"max_tokens": 5}, None),
        ({"models": ["n*"]}, {}, "model"),
    ],
)
def test_a_role_has_ceilings(make_site: Any, role: Any, payload: Any, param: str | None) -> None:
    site = make_site(roles={"held": role})
    engine(site, prompt=20)
    answer = site.client.post(CHAT, json=body(**payload), headers=bearer(site.key(role="held")))
    assert answer.status_code == 403
    assert answer.json()["error"]["param"] == param
    assert "'held'" in answer.text
    assert site.reached == []


def test_an_adapter_needs_a_right_of_its_own(make_site: Any) -> None:
    site = make_site(roles={"base": {"models": ["m"]}})
    caught: list[int] = []

    async def answer(_request: Request) -> Response:
        try:
            door.enter("r", prompt=1, answers=1, max_tokens=1, adapter="secret-adapter", priority=0)
        except Exception:  # noqa: BLE001 -- as vLLM's handlers do
            caught.append(1)
        return JSONResponse({}, 500)

    site.app.router.routes.insert(0, Route(CHAT, answer, methods=["POST"]))
    response = site.client.post(CHAT, json=body(), headers=bearer(site.key(role="base")))
    assert (response.status_code, response.json()["error"]["code"]) == (403, "model_not_allowed")
    assert caught == [1]


def test_rank_and_session_are_for_whom_they_are(make_site: Any) -> None:
    site = make_site(roles={"ranked": {"rank": True}})
    for role, expected in (("user", None), ("ranked", "1"), ("admin", "1")):
        headers = {**bearer(site.key(role=role)), "X-data-parallel-rank": "1"}
        assert site.client.get("/v1/models", headers=headers).json()["rank"] == expected


def test_bodies_and_headers_have_limits(make_site: Any) -> None:
    site = make_site(max_body_bytes=1000, max_header_bytes=2000)
    key = bearer(site.key())
    big = b"x" * 1001

    def parts() -> Iterator[bytes]:
        yield big[:500]
        yield big[500:]

    assert site.client.post("/health", content=parts()).status_code == 413, "open, and nobody's to fill"
    json_type = {"content-type": "application/json"}
    for content in (big, parts()):
        answer = site.client.post(CHAT, content=content, headers={**key, **json_type})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    form = {**key, "content-type": "multipart/form-data; boundary=x"}
    assert site.client.post(CHAT, content=parts(), headers=form).status_code == 413
    site.reached.clear()  # vLLM reads a form itself, as far as the limit
    assert (
        site.client.post(CHAT, content=b"{", headers={**key, **json_type}).json()["error"]["code"]
        == "invalid_json"
    )
    deep = b"[" * 900
    assert site.client.post(CHAT, content=deep, headers={**key, **json_type}).status_code == 400
    assert site.client.get("/v1/models", headers={**key, "X-A": "a" * 3000}).status_code == 431
    assert site.client.get("/health", headers={"X-A": "a" * 3000}).status_code == 431
    assert site.reached == []
    whole = site.client.post(CHAT, content=b'{"a": 1}', headers={**key, **json_type}).json()
    assert whole["body"] == '{"a": 1}'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "model",
    "messages",
    "prompt",
    "input",
    "n",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "background",
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6).map(
    lambda body: json.dumps(body).encode()
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(content=BODIES | st.binary(max_size=40), kind=st.sampled_from(["application/json", "text/plain", ""]))
def test_no_body_breaks_the_stages(limited: Any, content: bytes, kind: str) -> None:
    site, key = limited
    headers = {**bearer(key), "content-type": kind}
    answer = site.client.post("/v1/load", content=content, headers=headers)
    assert answer.status_code in (400, 403, 404, 429)
    if answer.status_code != 404:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.fixture
def limited(make_site: Any) -> Any:
    role = {"models": ["m*"], "endpoints": ["/v1/load"], "max_n": 2, "max_tokens": 50, "max_context": 500}
    limits = {"tokens_per_minute": 5000, "money_per_day": 5, "concurrent_requests": 1}
    site = make_site(
        roles={"held": role}, quotas={"tenants": {"acme": limits}, "prices": {"default": {"input": 1}}}
    )
    return site, site.key(role="held")


def test_many_at_once_are_admitted_exactly(make_site: Any) -> None:
    site = make_site(quotas={"tenants": {"acme": {"tokens_per_minute": 1000, "concurrent_requests": 40}}})
    engine(site, prompt=20, output=50)
    key = site.key()

    async def ask_all() -> list[int]:
        transport = httpx.ASGITransport(app=site.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=bearer(key)
        ) as client:
            answers = await asyncio.gather(*(client.post(CHAT, json=body(stream=True)) for _ in range(60)))
            return [answer.status_code for answer in answers]

    statuses = asyncio.run(ask_all())
    assert set(statuses) == {200, 429}
    assert used(site, key, "tokens_per_minute") == 70 * statuses.count(200) <= 1000


def test_the_estimate_counts_prompts_answers_and_no_files() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    chat = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 400}, picture]}], "n": 3}
    assert 100 <= estimate(CHAT, chat, 10, 4096).prompt < 120
    assert estimate(CHAT, chat, 10, 4096).output == 30
    assert estimate("/v1/completions", {"prompt": ["a", "b"]}, 10, 4096).output == 20
    assert estimate("/v1/completions", {"prompt": [1, 2, 3]}, None, 100) == Amount(3, 97)
    assert estimate("/v1/embeddings", {"input": "x" * 40}, None, 100) == Amount(10)
    assert estimate(CHAT, {"messages": 5, "n": -1, "prompt": [None]}, None, 10).tokens > 0


def test_money_is_rounded_up_and_never_lost() -> None:
    price = PriceSettings(input=0.15, output=0.6)
    assert Amount(1, 0).cost(price) == 150
    assert Amount(0, 1).cost(PriceSettings(output=0.0000001)) == 1
    plan = Plan(
        QuotaSettings.model_validate({"tenants": {"t": {"money_per_month": 2}}}), Principal("p", "t", "r")
    )
    (charge,) = plan.windows(1, Amount(1000, 1000), price)
    assert (charge.limit, charge.amount, charge.most) == ("money_per_month", 750_000, 2 * 10**9)
    assert output_limit({"max_tokens": 5, "max_completion_tokens": 3}, QuotaSettings(), RoleSettings()) == 5
