"""docker/settings/closed.yaml with a real PostgreSQL, and a real Redis started as the compose file starts it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from guarded_site import Site, bearer

from vllm_vlinders.cli import main
from vllm_vlinders.serving.access import install, open_access
from vllm_vlinders.settings import active_settings

DOCKER = Path(__file__).resolve().parents[3] / "docker"
PASSWORD = "of-the-tests"
PATIENCE_SECONDS = 60


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    redis = pytest.importorskip("redis")
    service = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["redis"]
    command = [part.replace("${REDIS_PASSWORD:-}", PASSWORD) for part in service["command"]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = subprocess.Popen([*command, *address], stdout=subprocess.DEVNULL)
    url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    deadline = time.monotonic() + PATIENCE_SECONDS
    client = redis.Redis.from_url(url)
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield url
    client.close()
    process.kill()
    process.wait()


def test_a_server_is_closed_and_counts_in_redis(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    redis_url: str,
    postgresql: str,
) -> None:
    import redis

    monkeypatch.setenv("VLINDERS_CONFIG", str(DOCKER / "settings" / "closed.yaml"))
    monkeypatch.setenv("VLINDERS_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("KEYS_URL", postgresql)
    monkeypatch.setenv("KEYS_PEPPER", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("QUOTAS_URL", redis_url)
    active_settings.cache_clear()

    assert main(["keys", "create", "--tenant", "acme", "--json"]) == 0
    key = json.loads(capsys.readouterr().out)["key"]
    main(["doctor", "--json"])
    auth: dict[str, Any] = next(row for row in json.loads(capsys.readouterr().out) if row["check"] == "auth")
    assert (auth["result"], auth["found"]) == ("ok", "closed; 1 API keys")

    access = open_access(active_settings(), ())
    install(access)
    try:
        assert access is not None
        site = Site(access)
        chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
        assert site.client.post("/v1/chat/completions", json=chat).status_code == 401
        answer = site.client.post("/v1/chat/completions", json=chat, headers=bearer(key))
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ratelimit-limit-tokens"] == "200000"
        assert redis.Redis.from_url(redis_url).dbsize() > 0
    finally:
        install(None)
        active_settings.cache_clear()
