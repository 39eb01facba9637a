"""What limits do not see is refused to whom it would set free of them."""

from __future__ import annotations

from typing import Any

import pytest
from guarded_site import CHAT, bearer, body, engine, used
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.websockets import WebSocketDisconnect


@pytest.mark.parametrize("background", [True, 1, "true", "on", False, None, 0])
def test_background_work_is_charged_in_full_and_takes_no_place(make_site: Any, background: Any) -> None:
    tenants = {"acme": {"tokens_per_minute": 1000}, "beta": {"concurrent_requests": 1}}
    site = make_site(quotas={"tenants": tenants})
    site.app.router.routes.append(Route("/v1/responses", site.answer, methods=["POST"]))
    ask = {"model": "m", "input": "word " * 20, "max_output_tokens": 50, "background": background}
    key = site.key()
    assert site.client.post("/v1/responses", json=ask, headers=bearer(key)).status_code == 200
    assert used(site, key, "tokens_per_minute") == (75 if background else 0)
    answer = site.client.post("/v1/responses", json=ask, headers=bearer(site.key(tenant="beta")))
    assert answer.status_code == (400 if background else 200)
    if background:
        assert answer.json()["error"]["param"] == "background"
        assert "concurrent_requests of tenant:beta" in answer.text


def test_background_work_that_vllm_refuses_is_not_charged(make_site: Any) -> None:
    async def refuse(_request: Request) -> JSONResponse:
        return JSONResponse({"error": "no store"}, 400)

    site = make_site(quotas={"tenants": {"acme": {"tokens_per_minute": 1000}}})
    site.app.router.routes.append(Route("/v1/responses", refuse, methods=["POST"]))
    key = site.key()
    ask = {"model": "m", "input": "word " * 20, "max_output_tokens": 50, "background": True}
    assert site.client.post("/v1/responses", json=ask, headers=bearer(key)).status_code == 400
    assert used(site, key, "tokens_per_minute") == 0


LIMITED = [
    ({"max_tokens": 100}, {}, False),
    ({"max_n": 4}, {}, False),
    ({"max_context": 100}, {}, False),
    ({}, {"tokens_per_minute": 9999}, False),
    ({}, {"money_per_day": 1}, False),
    ({}, {"requests_per_minute": 9, "concurrent_requests": 1}, True),
]
"""Ceilings of a role, limits of a tenant, and whether they leave the length of answers open."""


@pytest.mark.parametrize(("ceiling", "limit", "allowed"), LIMITED)
def test_beams_are_for_callers_whose_answers_have_no_limits(
    make_site: Any, ceiling: Any, limit: Any, allowed: bool
) -> None:
    site = make_site(roles={"held": ceiling}, quotas={"tenants": {"acme": limit}})
    headers = bearer(site.key(role="held"))
    engine(site, request_id="chatcmpl-a-0123456789abcdef-beam-1-89abcdef")
    for asked in (
        {"use_beam_search": True},
        {"use_beam_search": 1},
        {},
    ):  # {}: as in a form, which nobody reads
        answer = site.client.post(CHAT, json=body(**asked), headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert allowed or answer.json()["error"]["param"] == "use_beam_search"
    engine(site)
    assert site.client.post(CHAT, json=body(use_beam_search=False), headers=headers).status_code == 200


@pytest.mark.parametrize(("ceiling", "limit", "allowed"), LIMITED)
def test_web_sockets_are_for_callers_whose_tokens_have_no_limits(
    make_site: Any, ceiling: Any, limit: Any, allowed: bool
) -> None:
    site = make_site(roles={"held": ceiling}, quotas={"tenants": {"acme": limit}})
    headers = bearer(site.key(role="held"))
    try:
        with site.client.websocket_connect("/v1/realtime", headers=headers) as opened:
            assert opened.receive_text() == "acme"
    except WebSocketDisconnect as refused:
        assert "not for callers with ceilings" in refused.reason
    assert site.reached == (["/v1/realtime"] if allowed else [])
