"""Every route of the real application, of every task and in development mode: none is open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WALK = """
import asyncio, json, os, sys
os.environ["VLLM_SERVER_DEV_MODE"] = "1"
from vllm.plugins import load_general_plugins
if sys.argv[2] == "early":
    load_general_plugins()
try:
    from vllm.entrypoints.launchers.api_server import entry
    import vllm.entrypoints.launchers.render.entry
except ImportError:
    from vllm.entrypoints.openai import api_server as entry
load_general_plugins()
from vllm.tasks import GENERATION_TASKS, POOLING_TASKS
from vllm.utils.argparse_utils import FlexibleArgumentParser
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError:
    try:
        from vllm.entrypoints.common.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser
from vllm_vlinders.serving.access import active_access
from vllm_vlinders.serving.pipeline import Pipeline

root = sys.argv[1]
args = make_arg_parser(FlexibleArgumentParser()).parse_args(
    ["--api-key", "command-line", "--allowed-origins", '["http://page"]',
     "--enable-tokenizer-info-endpoint", "--enable-offline-docs",
     *(["--root-path", root] if root else [])])
app = entry.build_app(args, (*GENERATION_TASKS, *POOLING_TASKS, "render"))
assert [m.cls is Pipeline for m in app.user_middleware].index(True) == 0
assert sum(m.cls is Pipeline for m in app.user_middleware) == 1
assert len([r for r in app.routes if getattr(r, "path", "") == "/vlinders/status"]) == 1
assert not any(m.cls.__name__ == "AuthenticationMiddleware" for m in app.user_middleware)
assert args.api_key == ["command-line"]
reached = []


class Watch:
    def __init__(self, router):
        self.router = router
    def __getattr__(self, name):
        return getattr(self.router, name)
    async def __call__(self, scope, receive, send):
        reached.append((scope.get("method"), scope["path"]))
        await self.router(scope, receive, send)


def leaves(routes, prefix=""):
    for route in routes:
        path = prefix + getattr(route, "path", "")
        yield path, getattr(route, "methods", None) or {"GET"}, type(route).__name__
        yield from leaves(getattr(route, "routes", None) or (), path)


async def ask(kind, path, method, headers=()):
    sent = []
    async def receive():
        return {"type": "websocket.connect"} if kind == "websocket" else {
            "type": "http.request", "body": b"{}", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
             "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
             "query_string": b"", "headers": [(b"host", b"x"), *headers], "client": ("192.0.2.1", 1),
             "server": ("x", 80), "subprotocols": [], "state": {}}
    if kind == "websocket":
        del scope["method"]
    await app(scope, receive, send)
    return sent[0].get("status", sent[0].get("code"))


async def walk():
    app.middleware_stack = app.build_middleware_stack()
    at, below = app.middleware_stack, None
    while not type(at).__name__.endswith("Router") and hasattr(at, "app"):
        below, at = at, at.app
    below.app = Watch(at)
    findings, asked = [], 0
    paths = list(leaves(app.routes))
    for path, methods, kind in paths:
        path = path.replace("{", "x").replace("}", "x").replace(":path", "")
        websocket = "WebSocket" in kind
        for method in sorted({*methods, "GET", "HEAD", "OPTIONS", "POST"}):
            for form in {path, root + path, path + "/", "/" + path, path.upper(), path.replace("/", "//"),
                         path + "/.", "/health/.." + path, "/ping/" + path, path.replace("e", "%65", 1)}:
                inside = form[len(root):] if root and form.startswith(root + "/") else form
                if inside in ("/health", "/ping"):
                    continue
                asked += 1
                before = len(reached)
                status = await ask("websocket" if websocket else "http", form, method)
                if status not in (401, 1008) or len(reached) > before:
                    findings.append([method, form, status])
    good = await ask("http", "/version", "GET", [(b"authorization", b"Bearer command-line")])
    preflight = await ask("http", "/v1/models", "OPTIONS", [
        (b"origin", b"http://page"), (b"access-control-request-method", b"POST")])
    print(json.dumps({"asked": asked, "routes": len(paths), "findings": findings, "good": good,
                      "preflight": preflight, "kinds": sorted({kind for _, _, kind in paths})}))

asyncio.run(walk())
"""


@pytest.mark.parametrize(("root", "when"), [("", "late"), ("/proxy", "early")])
def test_no_route_of_vllm_is_open(root: str, when: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VLINDERS_")}
    environ = {
        **kept,
        "VLLM_CUSTOM_PATCHES": "vllm_vlinders",
        "VLINDERS_AUTH__KEYS__STORE": f"sqlite:///{tmp_path}/keys.db",
        "VLINDERS_AUTH__KEYS__PEPPER": "env:TEST_PEPPER",
        "VLINDERS_AUTH__BRUTE_FORCE__MAX_DELAY_SECONDS": "0",
        "VLINDERS_AUTH__AUDIT__ENABLED": "false",
        "VLINDERS_LOGGING__LEVEL": "error",
        "XDG_STATE_HOME": str(tmp_path),
        "TEST_PEPPER": "a pepper of the tests",
    }
    done = subprocess.run(
        [sys.executable, "-c", WALK, root, when], capture_output=True, text=True, env=environ, timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["findings"] == []
    assert found["routes"] > 50
    assert found["asked"] > 2000
    assert any("WebSocket" in kind for kind in found["kinds"])
    assert found["good"] == 200
    assert found["preflight"] == 200
