"""A guarded server of four API server processes, as its callers and its operators meet it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from server import LORA, LORA_NAME, MODEL, PACED, ROOT, START_SECONDS, Server, clean_environment, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE = 420  # four API servers have more to load than one
BIN = Path(sys.executable).parent
TOKENS = 3000
SEEN_SECONDS = 5
"""After which each process has seen what changed in the key store."""
COMMAND_LINE = "command-line-key-of-the-tests"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


class Guarded:
    """The server and its keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "vlinders.yaml"
        tree = {
            "auth": {
                "keys": {
                    "store": f"sqlite:///{folder}/keys.db",
                    "pepper": "env:TEST_PEPPER",
                    "poll_seconds": 0.2,
                },
                "audit": {"path": str(folder / "audit.jsonl")},
                "roles": {"coder": {"models": [LORA_NAME], "max_tokens": 20}},
            },
            "quotas": {
                "tenants": {
                    "full": {"tokens_per_minute": TOKENS},
                    "cut": {"tokens_per_minute": 100_000, "concurrent_requests": 2},
                },
                "default_max_tokens": 64,
                "prices": {"default": {"input": 1, "output": 3}},
            },
        }
        self.config.write_text(yaml.safe_dump(tree))
        self.variables = {
            "VLLM_CUSTOM_PATCHES": "vllm_vlinders",
            "VLINDERS_CONFIG": str(self.config),
            "TEST_PEPPER": "a pepper of the integration tests",
        }
        self.admin = self.key("ops", "admin")
        arguments = ("--api-server-count", "4", "--enable-lora", "--max-lora-rank", "8")
        adapters = ("--lora-modules", f"{LORA_NAME}={LORA}", "--api-key", COMMAND_LINE)
        paced = ("--worker-cls", "paced_worker.PacedWorker")  # or a long stream ends before it is looked at
        variables = self.variables | PACED
        self.server = Server("guarded", (*arguments, *adapters, *paced), variables, patience=PATIENCE)

    def vlinders(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line beside the server."""
        command = [sys.executable, "-m", "vllm_vlinders.cli", *arguments]
        environ = clean_environment(**self.variables, **variables)
        return subprocess.run(command, env=environ, capture_output=True, text=True, cwd=ROOT, timeout=120)

    def key(self, tenant: str, role: str = "user") -> str:
        """Make a key by the command line."""
        done = self.vlinders("keys", "create", "--tenant", tenant, "--role", role, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["key"])

    def client(self, key: str | None) -> httpx.Client:
        """Return a client who holds `key`; each request has a connection of its own, to reach all processes."""
        headers = {"Connection": "close"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=120)

    def used(self, tenant: str, limit: str = "tokens_per_minute") -> int:
        """Return what `tenant` has used of a limit."""
        with self.client(self.admin) as client:
            subjects = client.get(f"/vlinders/usage?tenant={tenant}").json()["subjects"]
        return int(subjects[f"tenant:{tenant}"][limit]["used"])

    def until_used(self, tenant: str, limit: str, expected: int) -> None:
        """Wait until that is so."""
        deadline = time.monotonic() + 120
        while self.used(tenant, limit) != expected:
            assert time.monotonic() < deadline, self.used(tenant, limit)
            time.sleep(0.2)


@pytest.fixture(scope="module")
def guarded(no_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    site = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        site.server.start()
        yield site
    finally:
        site.server.stop()


def test_keys_come_and_go_in_every_process_without_a_restart(guarded: Guarded) -> None:
    key = guarded.key("acme")
    with guarded.client(key) as client:
        time.sleep(SEEN_SECONDS)
        assert {client.get("/v1/models").status_code for _ in range(16)} == {200}
        assert guarded.vlinders("keys", "revoke", key.split("_")[1]).returncode == 0
        time.sleep(SEEN_SECONDS)
        assert {client.get("/v1/models").json()["error"]["code"] for _ in range(16)} == {"revoked"}


def test_every_kind_of_client(guarded: Guarded) -> None:
    user, coder = guarded.key("acme"), guarded.key("acme", "coder")
    time.sleep(SEEN_SECONDS)
    chat = openai.OpenAI(base_url=f"{guarded.server.url}/v1", api_key=user, max_retries=0)
    answer = chat.chat.completions.create(
        model="tiny", max_tokens=4, messages=[{"role": "user", "content": "Hi"}]
    )
    assert answer.usage is not None
    assert {model.id for model in chat.models.list()} == {"tiny", LORA_NAME}
    limited = chat.with_options(api_key=coder)
    assert {model.id for model in limited.models.list()} == {LORA_NAME}
    assert limited.completions.create(model=LORA_NAME, prompt="x", max_tokens=2).choices
    with pytest.raises(openai.PermissionDeniedError, match="may not use the model 'tiny'"):
        limited.completions.create(model="tiny", prompt="x")
    with pytest.raises(openai.AuthenticationError):
        chat.with_options(api_key="wrong").models.list()
    done = subprocess.run(
        ["curl", "-s", "-H", f"X-API-Key: {COMMAND_LINE}", f"{guarded.server.url}/version"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "version" in json.loads(done.stdout)
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{guarded.server.port}/v1/realtime")
    assert refused.value.response.status_code == 403
    with guarded.client(coder) as client:
        for path, body in (
            (CHAT, {"messages": []}),
            (COMPLETIONS, {"prompt": "x"}),
            ("/invocations", {"prompt": "x"}),
        ):
            assert client.post(path, json=body).status_code == 403, path  # the model left out is not theirs
        sage_maker = {"X-Amzn-SageMaker-Adapter-Identifier": "tiny"}
        body = {"model": LORA_NAME, "prompt": "x"}
        assert client.post("/invocations", json=body, headers=sage_maker).status_code == 403
        assert client.post(COMPLETIONS, json={**body, "max_tokens": 21}).status_code == 403
        short = client.post(COMPLETIONS, json={**body, "ignore_eos": True}).json()
        assert short["usage"]["completion_tokens"] == 16  # vLLM's default is below the ceiling
        for path in ("/v1/load_lora_adapter", "/vlinders/keys"):
            assert client.post(path, json={}).status_code == 403


def test_concurrent_requests_never_use_more_than_the_limit(guarded: Guarded) -> None:
    key = guarded.key("full")
    time.sleep(SEEN_SECONDS)

    async def ask(number: int) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=guarded.server.url, headers=headers, timeout=250) as client:
            prompt = "The quick brown fox " * (number % 5)
            body = {"model": "tiny", "prompt": prompt or "x", "max_tokens": 60, "n": 1 + number % 2}
            answer = await client.post(COMPLETIONS, json=body)
            return answer.status_code, answer.json()

    async def ask_all() -> list[tuple[int, dict[str, Any]]]:
        return await asyncio.gather(*map(ask, range(80)))

    answers = asyncio.run(ask_all())
    assert {status for status, _ in answers} == {200, 429}
    spent = sum(body["usage"]["total_tokens"] for status, body in answers if status == 200)
    assert 0 < spent <= TOKENS
    guarded.until_used("full", "tokens_per_minute", spent)


def test_a_stream_that_is_cut_is_settled_and_gives_its_place_back(guarded: Guarded) -> None:
    key = guarded.key("cut")
    time.sleep(SEEN_SECONDS)
    body = {"model": "tiny", "prompt": "x", "max_tokens": 15_000, "ignore_eos": True, "stream": True}
    with guarded.client(key) as client:
        for _ in range(3):
            with client.stream("POST", COMPLETIONS, json=body) as answer:
                assert answer.status_code == 200
                lines = answer.iter_lines()
                for _ in range(6):
                    next(lines)
                assert guarded.used("cut", "concurrent_requests") == 1
            guarded.until_used("cut", "concurrent_requests", 0)
        assert 6 <= guarded.used("cut") < 3 * 15_000
        assert client.post(COMPLETIONS, json={**body, "max_tokens": 3, "stream": False}).status_code == 200


def test_a_key_revoked_in_the_middle_of_a_stream(guarded: Guarded) -> None:
    key = guarded.key("cut")
    time.sleep(SEEN_SECONDS)
    body = {"model": "tiny", "prompt": "x", "max_tokens": 200, "ignore_eos": True, "stream": True}
    with guarded.client(key) as client, client.stream("POST", COMPLETIONS, json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert guarded.vlinders("keys", "revoke", key.split("_")[1]).returncode == 0
        time.sleep(SEEN_SECONDS)
        assert client.post(COMPLETIONS, json=body).status_code == 401
        assert [line for line in lines if line][-1] == "data: [DONE]"
    guarded.until_used("cut", "concurrent_requests", 0)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")
def test_a_prometheus_finds_data_for_every_panel_and_rule(guarded: Guarded, tmp_path: Path) -> None:
    scraper, full, others = guarded.key("ops", "metrics"), guarded.key("full"), guarded.key("cut")
    key_file = tmp_path / "key"
    key_file.write_text(scraper)
    script, address = ROOT / "scripts" / "prometheus.py", f"127.0.0.1:{guarded.server.port}"
    command = [
        sys.executable,
        str(script),
        "--check",
        "--all",
        "--target",
        address,
        "--port",
        str(free_port()),
    ]
    process = subprocess.Popen(
        [*command, "--key-file", str(key_file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    body = {"model": "tiny", "prompt": "The quick brown fox " * 40, "max_tokens": 60, "ignore_eos": True}
    statuses = set()
    while process.poll() is None:
        for key in (full, others, "wrong"):
            with guarded.client(key) as client:
                statuses.add(client.post(COMPLETIONS, json=body).status_code)

    assert process.returncode == 0, process.communicate()[0]
    assert {200, 401, 429} <= statuses


def test_the_live_server_is_proven_closed(guarded: Guarded) -> None:
    done = guarded.vlinders(
        "verify", guarded.server.url, "--key", "env:ADMIN_KEY", "--json", ADMIN_KEY=guarded.admin
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["findings"]) == (0, []), done.stderr
    assert report["requests"] > 300


def test_nothing_that_was_written_holds_a_secret(guarded: Guarded) -> None:
    with guarded.client(None) as client:
        client.get(f"/{guarded.admin}", headers={"Authorization": f"Bearer {guarded.admin[:-1]}"})
    audit = (guarded.folder / "audit.jsonl").read_text()
    assert {"request", "key.created", "key.revoked"} <= {
        json.loads(line)["event"] for line in audit.splitlines()
    }
    for hidden in (guarded.admin.rpartition("_")[2][:24], COMMAND_LINE, "a pepper of the integration tests"):
        assert hidden not in audit
        if hidden != COMMAND_LINE:  # vLLM itself prints its arguments
            assert hidden not in guarded.server.log


def test_the_walk_of_the_docs_ends_in_a_closed_server(no_server: None, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "auth.md").read_text()
    walk = text.partition("## From nothing")[2].partition("\n## ")[0]
    script = "\n".join(line[4:] for line in walk.splitlines() if line.startswith("    ") or not line)
    script = script.replace("sleep 2", "sleep 10")  # on a busy machine two seconds may not be enough
    script = script.replace("8000", str(free_port()))
    script = script.replace('vllm serve "$MODEL"', 'vllm serve "$MODEL" --enforce-eager')
    script = script.replace("do sleep 1", "do kill -0 $!; sleep 1")  # a server that ended is not waited for
    expected = re.findall(r"# (\d{3})$", script, re.MULTILINE)
    assert len(expected) == 8
    environ = clean_environment(
        MODEL=str(MODEL), PATH=f"{BIN}:{os.environ['PATH']}", PYTHONPATH=os.environ.get("PYTHONPATH")
    )
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environ, text=True,
            stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            lines = iter(process.stdout.readline, "")  # type: ignore[union-attr]
            printed, deadline = [], time.monotonic() + START_SECONDS
            for line in lines:
                printed.append(line.strip())
                if line.startswith("closed:") or time.monotonic() > deadline:
                    break
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                time.sleep(5)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        problem = log.read()[-3000:]
    statuses = [line for line in printed if re.fullmatch(r"\d{3}", line)]
    assert statuses == expected, problem
    assert printed[-1].startswith("closed:"), problem
