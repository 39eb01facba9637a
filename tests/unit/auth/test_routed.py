"""The router behind the real guard: rights and quotas are those of the model that answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "routing"))  # for elsewhere.py

from elsewhere import Elsewhere
from guarded_site import Site, bearer

from vllm_vlinders.serving.router import install_routing, open_routing
from vllm_vlinders.settings import Settings

CHAT = "/v1/chat/completions"
SERVED = ("strong", "cheap")
MODELS: dict[str, Any] = {"strong": {"cost": 0.03}, "cheap": {"cost": 0.002, "speed": "fast"}}
EASY = {"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
HARD = {
    **EASY,
    "messages": [{"role": "user", "content": "Design a multi-region database, with failover and audit"}],
}


@pytest.fixture(autouse=True)
def no_router() -> Iterator[None]:
    yield
    install_routing(None)


def use(models: dict[str, Any] = MODELS, **section: Any) -> None:
    settings = Settings.model_validate({"routing": {"models": models, **section}})
    install_routing(open_routing(settings, SERVED))


def test_auto_needs_no_right_of_its_own_and_gives_none(make_site: Callable[..., Site]) -> None:
    roles = {"weak": {"models": ["cheap"]}, "named": {"models": ["auto"]}, "other": {"models": ["x*"]}}
    site = make_site(roles=roles)
    use()
    for role, model in (("user", "strong"), ("weak", "cheap")):
        answer = site.client.post(CHAT, json=HARD, headers=bearer(site.key(role=role)))
        assert answer.headers["X-Vlinders-Model"] == model
        assert f'"model":"{model}"' in answer.json()["body"]
    for role in ("named", "other"):
        answer = site.client.post(CHAT, json=HARD, headers=bearer(site.key(role=role)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    weak = bearer(site.key(role="weak"))
    assert site.client.post(CHAT, json={**HARD, "model": "strong"}, headers=weak).status_code == 403
    prefer = {**weak, "X-Vlinders-Requirements": "model=strong"}
    assert site.client.post(CHAT, json=HARD, headers=prefer).status_code == 403


def test_what_is_explained_is_what_would_be_done(make_site: Callable[..., Site]) -> None:
    site = make_site(roles={"weak": {"models": ["cheap"]}})
    use()
    admin = bearer(site.key(role="admin"))

    def explain(**more: Any) -> Any:
        return site.client.post("/vlinders/route", content=json.dumps({**HARD, **more}), headers=admin)

    assert explain().json()["model"] == "strong"
    assert explain(role="weak").json()["model"] == "cheap"
    assert explain(tenant="\ud800").status_code == 200
    for more in ({"role": "other"}, {"requirements": {"model": "other"}}):
        assert explain(**more).status_code == 400


def test_the_quota_is_held_against_the_price_of_the_model_that_answers(
    make_site: Callable[..., Site],
) -> None:
    quotas = {
        "tenants": {"acme": {"money_per_day": 1}},
        "prices": {"strong": {"output": 10_000}, "cheap": {"output": 10}},
    }
    site = make_site(quotas=quotas)
    use()
    headers = bearer(site.key())
    sized = {"max_tokens": 1000}
    assert site.client.post(CHAT, json={**EASY, **sized}, headers=headers).status_code == 200
    assert site.client.post(CHAT, json={**HARD, **sized}, headers=headers).status_code == 429


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"max_tokens": None}, {"max_tokens": 20}),
        ({"max_tokens": -1}, {"max_tokens": 20}),
        ({"max_tokens": "5"}, {"max_tokens": 5}),
        ({"max_tokens": 7.0, "n": "2"}, {"max_tokens": 7, "n": 2}),
        ({"max_tokens": None, "max_completion_tokens": 9}, {"max_tokens": None, "max_completion_tokens": 9}),
        ({"max_completion_tokens": None}, {"max_tokens": 20, "max_completion_tokens": None}),
        ({"max_tokens": "21"}, 403),
        ({"n": "3"}, 403),
        ({"n": 3.0}, 403),
        ({"max_tokens": "many"}, 400),
        ({"max_tokens": [1]}, 400),
        ({"max_tokens": 5.5}, 400),
    ],
)
def test_ceilings_hold_for_an_upstream_however_sizes_are_written(
    make_site: Callable[..., Site], asked: Any, sent: Any
) -> None:
    there = Elsewhere()
    site = make_site(roles={"short": {"max_tokens": 20, "max_n": 2}})
    use({**MODELS, "far": {"upstream": {"urls": [there.url]}}})
    try:
        with site.client:
            ask = {**EASY, "model": "far", **asked}
            answer = site.client.post(CHAT, json=ask, headers=bearer(site.key(role="short")))
            if isinstance(sent, int):
                assert answer.status_code == sent
                assert answer.json()["error"]["param"] in asked
                assert not there.seen
            else:
                assert answer.status_code == 200
                assert {name: there.seen[0][1][name] for name in sent} == sent
    finally:
        there.served.stop()


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/v1/completions", {"prompt": [7] * 900}, 403),
        ("/v1/completions", {"prompt": ["hi", "word " * 900]}, 403),
        ("/v1/completions", {"prompt": ["word " * 300] * 3}, 200),
        (
            CHAT,
            {**EASY, "prompt": ["word"] * 50_000, "messages": [{"role": "user", "content": "x"}] * 50_000},
            403,
        ),
        ("/v1/responses", {"input": [{"type": "function_call_output", "output": "word " * 900}]}, 403),
        ("/v1/responses", {"input": "hi", "instructions": "word " * 900}, 403),
        (CHAT, {**EASY, "tools": [{"type": "function", "function": {"description": "word " * 900}}]}, 403),
    ],
)
def test_a_prompt_for_an_upstream_is_no_longer_than_the_role_allows(
    make_site: Callable[..., Site], path: str, more: Any, status: int
) -> None:
    there = Elsewhere()
    site = make_site(roles={"short": {"max_context": 800}})
    use({**MODELS, "far": {"upstream": {"urls": [there.url]}}})
    try:
        with site.client:
            ask = {**more, "model": "far", "max_tokens": 5}
            got = site.client.post(path, json=ask, headers=bearer(site.key(role="short")))
            assert got.status_code == status
    finally:
        there.served.stop()


def test_what_an_upstream_uses_is_charged(make_site: Callable[..., Site]) -> None:
    there = Elsewhere()
    quotas = {"tenants": {"acme": {"tokens_per_minute": 100_000}}}
    roles = {"short": {"max_tokens": 20}}
    site = make_site(quotas=quotas, roles=roles)
    use({**MODELS, "far": {"upstream": {"urls": [there.url]}}})
    headers = bearer(site.key(role="short"))

    def used() -> int:
        subjects = site.client.get("/vlinders/usage", headers=headers).json()["subjects"]
        return int(subjects["tenant:acme"]["tokens_per_minute"]["used"])

    try:
        with site.client:
            far = {**EASY, "model": "far"}
            assert site.client.post(CHAT, json=far, headers=headers).status_code == 200
            assert used() == 9
            assert site.client.post(CHAT, json={**far, "stream": True}, headers=headers).status_code == 200
            assert used() == 18
            assert [body["max_tokens"] for _, body in there.seen] == [20, 20]  # the ceiling of the role
            there.mode = 503
            assert site.client.post(CHAT, json=far, headers=headers).status_code == 503
            assert used() == 18
    finally:
        there.served.stop()
