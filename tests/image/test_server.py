"""The company's image serves: closed, patched, on a read-only root, and stops in order."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator

import httpx
import pytest

from container import inspect, podman, run
from server import MODEL, START_SECONDS, clean_environment, free_port

NAME = "vlinders-image-test"
GRACE_SECONDS = 60
PEPPER = "0123456789abcdef0123456789abcdef"
SETTINGS = """
auth:
  keys: {store: "sqlite:////var/lib/vlinders/keys.db", pepper: "env:VLINDERS_PEPPER"}
  audit: {enabled: false}
"""


class Served:
    """The running container."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def post(self, path: str, **body: object) -> httpx.Response:
        headers = self._credential | {"X-Vlinders-Priority": "90"}
        return httpx.post(self.url + path, json={"model": "tiny", **body}, headers=headers, timeout=120)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=self._credential, timeout=30)

    @property
    def _credential(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="module")
def served(names: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    settings = folder / "vlinders.yaml"
    settings.write_text(SETTINGS, encoding="utf-8")
    state = folder / "state"
    state.mkdir()
    state.chmod(0o777)
    model = folder / "model"
    shutil.copytree(MODEL, model)
    for path in (model, *model.iterdir()):  # its weights are its maker's alone, and here another user reads
        path.chmod(0o755)
    kept = {name: value for name, value in clean_environment().items() if name.startswith(("VLLM_", "HF_"))}
    variables = kept | {"VLINDERS_CONFIG": "/etc/vlinders/vlinders.yaml", "VLINDERS_PEPPER": PEPPER}
    options = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    for place, target in (
        (settings, "/etc/vlinders/vlinders.yaml:ro"),
        (state, "/var/lib/vlinders"),
        (model, "/model:ro"),
    ):
        options += ["--volume", f"{place}:{target}"]
    made = run(
        names["company"],
        *("keys", "create", "--tenant", "acme", "--role", "user", "--json"),
        options=("--rm", "--entrypoint", "vlinders", *options),
    )
    port = free_port()
    arguments = ("/model", "--served-model-name", "tiny", "--enforce-eager", "--max-model-len", "2048")
    address = ("--host", "127.0.0.1", "--port", str(port), "--shutdown-timeout", "30")
    run(names["company"], *arguments, *address, options=("--detach", "--name", NAME, *options))
    try:
        served = Served(f"http://127.0.0.1:{port}", json.loads(made.stdout)["key"])
        wait_until_healthy(served)
        yield served
    finally:
        podman("rm", "--force", "--time", "1", NAME, check=False)


def wait_until_healthy(served: Served) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{served.url}/health", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        running = podman("inspect", "--format", "{{.State.Running}}", NAME).stdout.strip()
        assert running == "true", log()
        assert time.monotonic() < deadline, log()
        time.sleep(0.5)


def log() -> str:
    done = podman("logs", NAME)
    return done.stdout[-3000:] + done.stderr[-3000:]


def test_a_chat_is_answered(served: Served) -> None:
    answer = served.post(
        "/v1/chat/completions", max_tokens=8, messages=[{"role": "user", "content": "Hello"}]
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert answer.headers["X-Vlinders-Request-Id"]


def test_usage_is_stored_though_the_root_is_read_only(served: Served) -> None:
    assert served.post("/v1/completions", prompt="x", max_tokens=4).status_code == 200

    answer = served.get("/vlinders/usage")

    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["total"]["requests"] > 0


def test_verify_proves_it_closed(served: Served) -> None:
    done = podman("exec", NAME, "vlinders", "verify", served.url)

    assert done.stdout.startswith("closed: ")


def test_the_company_s_patch_is_in_force(served: Served) -> None:
    answer = served.post("/v1/completions", prompt="x", max_tokens=4, ignore_eos=True)

    assert answer.status_code == 400
    assert "ignore_eos: true is not allowed here" in answer.text


def test_it_answers_the_health_check_of_the_image(served: Served, names: dict[str, str]) -> None:
    port = served.url.rpartition(":")[2]
    kind, *command = inspect(names["company"])["Healthcheck"]["Test"]

    assert kind == "CMD"
    podman("exec", NAME, *(part.replace("8000", port) for part in command))


def test_the_process_of_the_container_is_vllm_itself(served: Served) -> None:
    command = podman("exec", NAME, "cat", "/proc/1/cmdline").stdout.split("\0")

    assert command[1].endswith("/vllm")
    assert command[2:4] == ["serve", "/model"]


def test_it_stops_when_asked_to(served: Served) -> None:
    podman("stop", "--time", str(GRACE_SECONDS), NAME)

    assert podman("inspect", "--format", "{{.State.ExitCode}}", NAME).stdout.strip() == "0", log()
