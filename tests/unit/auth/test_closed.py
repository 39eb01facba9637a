"""Nothing is answered to whom nobody knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from guarded_site import bearer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette._utils import get_route_path
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from vllm_vlinders.errors import RequestError, SettingsError
from vllm_vlinders.request_context import RequestContext
from vllm_vlinders.serving.access import active_access, install, open_access
from vllm_vlinders.serving.exchange import Exchange
from vllm_vlinders.serving.guard import hide_keys
from vllm_vlinders.settings import active_settings

TRICKS = [
    "/health/",
    "//health",
    "/Health",
    "/health%2F..%2Fv1/models",
    "/%68ealth/../v1/models",
    "/./health",
    "/health;x=1",
    "/health?/v1/models",
    "/v1/models",
    "/v1/models/",
    "//v1/models",
    "/V1/models",
    "/v1%2Fmodels",
    "/v1/%6dodels",
    "/v1/./models",
    "/mounted/deep",
    "/mounted//deep",
    "/mounted",
    "/vlinders/status",
    "/vlinders/keys",
    "/vlinders/usage",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/no/such/path",
    "/",
    "",
]


async def ask(app: Any, path: str, method: str = "GET", headers: Any = (), root: str = "") -> int:
    """Send a request whose path is taken as it is; return the status."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": root,
        "query_string": query.encode(),
        "headers": list(headers),
        "client": ("192.0.2.1", 5),
        "server": ("test", 80),
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE", "get", "X"])
@pytest.mark.parametrize("root", ["", "/proxy", "/health", "/v1"])
def test_only_open_paths_are_open(make_site: Any, method: str, root: str) -> None:
    site = make_site()
    for path in TRICKS:
        for whole in (path, root + path):
            decoded = TestClient(site.app).build_request("GET", f"http://test{whole}").url.path
            for form in {whole, decoded}:
                status = asyncio.run(ask(site.app, form, method, root=root))
                route = get_route_path({"path": form.partition("?")[0], "root_path": root})
                assert status == 401 or route == "/health", (method, root, form)
    assert set(site.reached) <= {"/health", f"{root}/health"}


@settings(deadline=None)
@given(path=st.text(max_size=30), root=st.sampled_from(["", "/a", "/a/b", "/"]))
def test_a_path_is_read_as_the_router_reads_it(path: str, root: str) -> None:
    for whole in (path, root + path):
        scope = {"path": whole, "root_path": root, "headers": []}
        exchange = Exchange(scope, RequestContext("x"), None)  # type: ignore[arg-type]
        assert exchange.path == get_route_path(scope)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "missing"),
        ([("Authorization", "Bearer")], "invalid_api_key"),
        ([("Authorization", "Basic eDp5")], "invalid_api_key"),
        ([("Authorization", "Bearer wrong")], "invalid_api_key"),
        ([("X-API-Key", "wrong")], "invalid_api_key"),
        ([("X-API-Key", "")], "invalid_api_key"),
        ([("X-API-Key", "vk_0123456789ab_" + "0" * 64)], "invalid_api_key"),
        ([("Authorization", "Bearer a"), ("X-API-Key", "b")], "ambiguous"),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], "ambiguous"),
    ],
)
def test_a_wrong_credential_is_told_apart_but_not_repeated(make_site: Any, headers: Any, code: str) -> None:
    site = make_site()
    answer = site.client.get("/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["X-Vlinders-Request-Id"]
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "vk_" not in answer.text
    assert not site.reached


def test_a_web_socket_needs_a_credential_too(make_site: Any) -> None:
    site = make_site()
    with pytest.raises(WebSocketDisconnect), site.client.websocket_connect("/v1/realtime"):
        pass
    assert not site.reached
    with site.client.websocket_connect("/v1/realtime", headers=bearer(site.key("acme"))) as socket:
        assert socket.receive_text() == "acme"


def test_an_open_web_socket_ends_with_its_credential(make_site: Any) -> None:
    site = make_site(api_keys=("first",))
    revoked, kept = site.key(), site.key()
    told = []
    for key in (revoked, kept, "first"):
        with site.client.websocket_connect("/v1/realtime?ask", headers=bearer(key)) as socket:
            assert socket.receive_text()
            for number in range(2):
                socket.send_text(f"r{number}")
                told.append(socket.receive_text())
                if key == revoked:
                    site.access.office("test").revoke(key.split("_")[1])
                    site.access.directory.refresh()
    assert told == ["in", "revoked", "in", "in", "in", "in"]


def test_preflights_pass_and_other_options_do_not(make_site: Any) -> None:
    app = make_site().app
    preflight = [(b"origin", b"http://a"), (b"access-control-request-method", b"POST")]
    assert asyncio.run(ask(app, "/v1/models", "OPTIONS", preflight)) == 405  # no CORS middleware here
    assert asyncio.run(ask(app, "/v1/models", "OPTIONS", preflight[:1])) == 401
    assert asyncio.run(ask(app, "/v1/models", "GET", preflight)) == 401


def test_both_headers_of_a_key_work_and_say_who_calls(make_site: Any) -> None:
    site = make_site()
    key = site.key("acme", principal="bot")
    for headers in (bearer(key), {"X-API-Key": key}, {**bearer(key), "X-API-Key": key}):
        answer = site.client.get("/v1/models", headers=headers).json()
        assert (answer["principal"], answer["tenant"], answer["role"]) == ("bot", "acme", "user")


def test_keys_of_the_command_line_are_admins(make_site: Any) -> None:
    site = make_site(api_keys=("first", "second"))
    for key in ("first", "second"):
        answer = site.client.get("/vlinders/status", headers=bearer(key))
        assert answer.json()["fine"]
    assert site.client.get("/v1/models", headers=bearer("firs")).status_code == 401


def test_who_sends_a_tenant_does_not_become_it(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLINDERS_SCHEDULER__TRUST_TENANT_HEADER", "true")
    site = make_site()
    headers = {**bearer(site.key("acme")), "X-Vlinders-Tenant": "other"}
    assert site.client.get("/v1/models", headers=headers).json()["tenant"] == "acme"


def test_a_store_that_is_gone_opens_nothing_and_says_so(make_site: Any, tmp_path: Path) -> None:
    site = make_site()
    key, admin = site.key(), site.key(role="admin")
    (tmp_path / "keys.db").write_bytes(b"no database at all, but long enough to be taken for one" * 40)
    site.access.directory.refresh()
    status = site.client.get("/vlinders/status", headers=bearer(admin)).json()
    assert "does not answer as it should" in status["auth"]["store"]
    assert site.client.get("/v1/models", headers=bearer(key)).status_code == 200
    assert site.client.get("/v1/models", headers=bearer("vk_x")).status_code == 401
    assert site.client.post("/vlinders/keys", json={}, headers=bearer(admin)).status_code == 400
    wish = {"tenant": "a", "role": "user"}
    answer = site.client.post("/vlinders/keys", json=wish, headers=bearer(admin))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_down")


def test_settings_without_a_guard_in_place_answer_nothing(make_site: Any) -> None:
    site = make_site()
    key = site.key()
    install(None)
    with pytest.raises(RequestError):
        active_access()
    assert site.client.get("/v1/models", headers=bearer(key)).status_code == 503
    assert site.client.get("/health").status_code == 503


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"VLINDERS_AUTH": "{}"}, "no credential could ever be right"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'sqlite:////tmp/x.db', pepper: 'env:NO_SUCH'}"}, "env:NO_SUCH is empty"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'sqlite:////tmp/x.db', pepper: 'file:/no/file'}"}, "cannot be read"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'sqlite:////tmp/x.db', pepper: s3cret}"}, "give a reference"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'sqlite:////tmp/x.db', pepper: 'env:SHORT'}"}, "shorter than 16"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'sqlite:////tmp/x.db'}"}, "pepper.*required"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'mysql://x', pepper: 'env:SHORT'}"}, "allowed are"),
        ({"VLINDERS_AUTH__KEYS": "{store: 'postgresql://u:s3cret@h/d', pepper: 'env:SHORT'}"}, "carries a password"),
        ({"VLINDERS_AUTH__OPEN_PATHS": "['/v1/*']"}, "exact path"),
    ],
)  # fmt: skip
def test_what_cannot_guard_does_not_start(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**environ, "SHORT": "s3cret"}.items():
        monkeypatch.setenv(name, value)
    active_settings.cache_clear()
    with pytest.raises(SettingsError, match=expected) as caught:
        open_access(active_settings(), ())
    assert "s3cret" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-api-key", b"content-type", b"content-length", b"origin"]),
            st.binary(max_size=120) | st.binary(max_size=20).map(lambda tail: b"Bearer vk_" + tail),
        ),
        max_size=4,
    ),
    method=st.sampled_from(["GET", "POST", "OPTIONS"]),
    path=st.text(max_size=20).map(lambda tail: f"/v1/{tail}"),
)
def test_no_made_up_credential_comes_in(hostile_site: Any, headers: Any, method: str, path: str) -> None:
    assert asyncio.run(ask(hostile_site.app, path, method, headers)) in (401, 405)
    assert not hostile_site.reached


@pytest.fixture
def hostile_site(make_site: Any) -> Any:
    return make_site()


def test_no_secret_reaches_the_log_nor_an_answer(make_site: Any, tmp_path: Path, capfd: Any) -> None:
    site = make_site(api_keys=("command-line-key",))
    key = site.key()
    secret = key.rpartition("_")[2]
    answers = [
        site.client.get("/v1/models", headers=bearer(key)),
        site.client.get(f"/{key}", headers=bearer(key)),
        site.client.get("/v1/models", headers=bearer(key[:-1] + "x")),
        site.client.get("/vlinders/keys", headers=bearer("command-line-key")),
        site.client.post("/v1/chat/completions", json={"model": key}, headers=bearer(key)),
    ]
    written = (tmp_path / "audit.jsonl").read_text() + "".join(capfd.readouterr())
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + len(answers)
    for hidden in (
        secret[:20],
        "command-line-key",
        "a pepper of the tests",
        site.access.office("x").list()[0].digest,
    ):
        assert hidden not in written
        assert not any(hidden in answer.text for answer in answers[1:4])


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (b"", b""),
        (b"a=%20+b&c=/?~", b"a=%20+b&c=/?~"),
        ("ü=1".encode(), b"%C3%BC=1"),
        (b"a=\xed&b=%2", b"a=%ED&b=%2"),
    ],
)
def test_a_query_is_passed_on_in_ascii(sent: bytes, passed_on: bytes) -> None:
    scope = {"path": "/v1/models", "query_string": sent, "headers": []}
    hide_keys(Exchange(scope, RequestContext("x"), None))  # type: ignore[arg-type]
    assert scope["query_string"] == passed_on


@pytest.mark.parametrize(
    "form", [str, lambda key: key.replace("_", "%5F"), lambda key: f"%{ord('v'):x}{key[1:]}"]
)
def test_a_key_in_the_address_is_not_left_for_access_logs(form: Callable[[str], str]) -> None:
    secret = "0" * 64
    key = f"vk_0123456789ab_{secret}"
    query = f"a=1%262&key={form(key)}&ü=1"
    scope = {"path": f"/{key}/ü", "query_string": query.encode(), "headers": []}
    hide_keys(Exchange(scope, RequestContext("x"), None))  # type: ignore[arg-type]
    left = parse_qs(scope["query_string"].decode("ascii"))
    assert secret not in scope["path"]
    assert secret not in scope["query_string"].decode("ascii")
    assert "0123456789ab" in scope["path"]
    assert secret not in str(left)
    assert "0123456789ab" in left["key"][0]
    assert (left["a"], left["ü"]) == (["1&2"], ["1"])
