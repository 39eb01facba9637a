"""Fuzz what strangers and callers send, through the whole pipeline, led by the coverage of our code (atheris).

    make fuzz [FUZZ_SECONDS=60]

Whatever comes, the answer is below 500, nobody without a good credential reaches the application, and no answer
repeats the secret of a key. What breaks this ends the run; the file that it leaves is an argument that tries it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "auth"))
with atheris.instrument_imports(include=["vllm_vlinders"]):
    from guarded_site import PEPPER, Site

    from vllm_vlinders.serving.access import active_access, install, open_access
    from vllm_vlinders.settings import active_settings

OPEN = {"/health", "/ping"}
PATHS = ("/health", "/v1/models", "/v1/chat/completions", "/v1/load_lora_adapter", "/metrics", "/mounted/deep",
         "/vlinders/keys", "/vlinders/usage", "/vlinders/status")  # fmt: skip
HEADERS = (b"authorization", b"x-api-key", b"content-type", b"content-length", b"x-session-id", b"x-vlinders-priority",
           b"x-vlinders-deadline-ms", b"x-vlinders-requirements", b"x-vlinders-tenant", b"x-data-parallel-rank",
           b"traceparent", b"x-request-id", b"origin")  # fmt: skip
FIELDS = ("model", "prompt", "messages", "input", "n", "best_of", "max_tokens", "max_completion_tokens", "stream",
          "priority", "user", "tools", "response_format", "content", "role", "text")  # fmt: skip
SETTINGS: dict[str, Any] = {
    "auth": {
        "keys": {"store": "sqlite:///keys.db", "pepper": "env:FUZZ_PEPPER"},
        "audit": {"path": "audit.jsonl"},
        "brute_force": {"max_delay_seconds": 0},
        "roles": {"held": {"models": ["m*"], "max_n": 2, "max_tokens": 50, "max_context": 500}},
        "max_body_bytes": 4096,
    },
    "quotas": {
        "tenants": {"acme": {"tokens_per_minute": 5000, "money_per_day": 5}},
        "prices": {"default": {"input": 1}},
    },
    "sessions": {"keys": ["header:X-Session-Id", "body:user"], "derive_from_prefix": True},
}


def make_site(folder: Path) -> tuple[Site, str]:
    """Return a guarded application in `folder`, and a key of a role that may little."""
    os.chdir(folder)
    os.environ |= {"FUZZ_PEPPER": PEPPER, "VLINDERS_RUN_DIR": str(folder), "VLINDERS_CONFIG": "vlinders.json"}
    Path("vlinders.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    install(open_access(active_settings(), ()))
    access = active_access()
    assert access is not None
    site = Site(access)
    return site, site.key(role="held")


def value(draw: Any, depth: int = 0) -> Any:
    """Draw what JSON can hold."""
    kind = draw.ConsumeIntInRange(0, 7 if depth < 4 else 5)
    if kind == 0:
        return draw.ConsumeUnicode(draw.ConsumeIntInRange(0, 40))
    if kind == 1:
        return draw.ConsumeInt(8)
    if kind == 2:
        return draw.ConsumeFloat()
    if kind < 6:
        return (None, True, "m1")[kind - 3]
    if kind == 6:
        return [value(draw, depth + 1) for _ in range(draw.ConsumeIntInRange(0, 3))]
    return {
        draw.PickValueInList(list(FIELDS)): value(draw, depth + 1)
        for _ in range(draw.ConsumeIntInRange(0, 4))
    }


def request(draw: Any, key: str) -> tuple[dict[str, Any], bytes, bool]:
    """Draw a request: its scope, its body, and whether it shows a good key."""
    path = draw.PickValueInList(list(PATHS))
    if draw.ConsumeBool():
        path += draw.ConsumeUnicodeNoSurrogates(12)
    good = draw.ConsumeBool()
    headers = [(b"authorization", f"Bearer {key}".encode())] if good else []
    for _ in range(draw.ConsumeIntInRange(0, 4)):
        name = draw.PickValueInList(list(HEADERS))
        form = draw.ConsumeIntInRange(0, 3)
        known = (b"", b"Bearer ", key.encode()[:20], b"application/json")[form]
        headers.append((name, known + draw.ConsumeBytes(24)))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": draw.PickValueInList(["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT"]),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "root_path": draw.PickValueInList(["", "/proxy"]),
        "query_string": draw.ConsumeBytes(20),
        "headers": headers,
        "client": ("192.0.2.1", 1),
        "server": ("test", 80),
    }
    body = json.dumps(value(draw)).encode() if draw.ConsumeBool() else draw.ConsumeBytes(200)
    return scope, body, good


async def answer(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    status, parts, left = 0, [], [body[:50], body[50:]]

    async def receive() -> dict[str, Any]:
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(parts)


def main() -> None:
    """Fuzz until a finding, or as long as the options of libFuzzer say."""
    folder = tempfile.mkdtemp(prefix="vlinders-fuzz-")
    site, key = make_site(Path(folder))
    secret = key.rsplit("_", 1)[1].encode()
    loop = asyncio.new_event_loop()

    def try_one(data: bytes) -> None:
        scope, body, good = request(atheris.FuzzedDataProvider(data), key)
        path = scope["path"]
        site.reached.clear()
        status, said = loop.run_until_complete(answer(site.app, scope, body))
        assert 200 <= status < 500, (status, said)
        assert good or not site.reached or path in OPEN or scope["method"] == "OPTIONS", (path, site.reached)
        assert secret not in said or secret in body, said

    atheris.Setup([*sys.argv, f"-artifact_prefix={folder}/"], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
