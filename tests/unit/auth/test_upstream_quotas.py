"""What callers with limits pay for what upstreams answer, and what is held against the limits before."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "routing"))  # for elsewhere.py

from elsewhere import Elsewhere, Served, wait_for
from guarded_site import CHAT, Site, bearer

from vllm_vlinders.serving.router import install_routing, open_routing
from vllm_vlinders.settings import Settings

PROMPT = "four" * 100
DEAR, CHEAP = {"output": 10_000}, {"output": 10}


def asked(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 50, **more}


@pytest.fixture
def there() -> Iterator[Elsewhere]:
    made = Elsewhere()
    yield made
    made.served.stop()


@pytest.fixture
def full() -> Iterator[Elsewhere]:
    """An upstream that is well and has no room."""
    made = Elsewhere(503)
    yield made
    made.served.stop()


@pytest.fixture
def serve(make_site: Callable[..., Site]) -> Iterator[Callable[..., Any]]:
    """Serve a site with these upstreams, each standing in for the one before it; return its address and a key."""
    served: list[Served] = []

    def start(urls: dict[str, str], quotas: Any) -> tuple[str, dict[str, str]]:
        site = make_site(quotas=quotas)
        models = {name: {"upstream": {"urls": [url], "health_seconds": 10_000}} for name, url in urls.items()}
        first, *others = urls
        models[first]["fallback"] = others
        route = {"name": "all", "when": {"turns": 1}, "models": [first]}
        section = {"models": models, "routes": [route], "default_routes": False, "default": "base"}
        install_routing(open_routing(Settings.model_validate({"routing": section}), ("base",)))
        served.append(Served(site.app))
        return served[-1].url, bearer(site.key())

    yield start
    for each in served:
        each.stop()
    install_routing(None)


def used(url: str, headers: dict[str, str], limit: str) -> float:
    answer = httpx.get(f"{url}/vlinders/usage", headers=headers)
    return float(answer.json()["subjects"]["tenant:acme"][limit]["used"])


def send_and_leave(url: str, headers: dict[str, str], body: dict[str, Any], there: Elsewhere) -> None:
    """Ask, wait until the upstream has been asked, and close the connection."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: here", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        wait_for(lambda: there.seen, "the upstream is not asked")


PROMPT_TOKENS = 101  # as estimated: the letters of "user" are among it


@pytest.mark.parametrize(
    ("body", "tokens"),
    [({}, PROMPT_TOKENS + 50), ({"n": 2}, PROMPT_TOKENS + 2 * 50), ({"stream": True}, PROMPT_TOKENS)],
)
def test_who_does_not_wait_for_a_whole_answer_pays_for_what_was_reserved(
    body: dict[str, Any], tokens: int, serve: Any, there: Elsewhere
) -> None:
    there.mode = "hang"
    limits = {"tokens_per_minute": 100_000, "concurrent_requests": 1}
    url, headers = serve({"far": there.url}, {"tenants": {"acme": limits}})
    send_and_leave(url, headers, asked("far", **body), there)
    wait_for(lambda: used(url, headers, "concurrent_requests") == 0, "the request goes on")
    assert used(url, headers, "tokens_per_minute") == tokens


def test_without_limits_nothing_is_known_of_an_answer_nobody_waited_for(
    serve: Any, there: Elsewhere, tmp_path: Path
) -> None:
    there.mode = "hang"
    url, headers = serve({"far": there.url}, {})
    send_and_leave(url, headers, asked("far"), there)
    audit = tmp_path / "audit.jsonl"
    wait_for(lambda: CHAT in audit.read_text(), "the request goes on")
    (line,) = (
        line for line in map(json.loads, audit.read_text().splitlines()) if line.get("endpoint") == CHAT
    )
    assert (line["status"], line["prompt_tokens"], line["output_tokens"]) == (499, PROMPT_TOKENS, 0)


@pytest.mark.parametrize(("money", "status"), [(0.4, 429), (0.6, 200)])
def test_a_dearer_model_answers_only_where_its_price_fits(
    money: float, status: int, serve: Any, there: Elsewhere, full: Elsewhere
) -> None:
    quotas = {
        "tenants": {"acme": {"money_per_day": money}},
        "prices": {"near": CHEAP, "far": DEAR},
    }
    url, headers = serve({"near": full.url, "far": there.url}, quotas)
    answer = httpx.post(f"{url}{CHAT}", json=asked("auto"), headers=headers)
    assert answer.status_code == status
    assert (len(full.seen), len(there.seen)) == (1, status == 200)
    if status == 429:
        assert answer.json()["error"]["param"] == "money_per_day"
    spent = pytest.approx(0.02 if status == 200 else 0)
    wait_for(lambda: used(url, headers, "money_per_day") == spent, "it is not settled")


def test_what_is_reserved_for_one_model_serves_the_next(
    serve: Any, there: Elsewhere, full: Elsewhere
) -> None:
    """A dear one, a cheap one and a dear one again need no more room than a dear one."""
    quotas = {
        "tenants": {"acme": {"money_per_day": 0.6}},
        "prices": {"first": DEAR, "second": CHEAP, "third": DEAR},
    }
    url, headers = serve({"first": full.url, "second": full.url, "third": there.url}, quotas)
    answer = httpx.post(f"{url}{CHAT}", json=asked("auto"), headers=headers)
    assert (answer.status_code, answer.headers["X-Vlinders-Model"], len(full.seen)) == (200, "third", 2)
    spent = pytest.approx(0.02)
    wait_for(lambda: used(url, headers, "money_per_day") == spent, "it is not settled")
