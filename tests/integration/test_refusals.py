"""A server that could not keep its promises does not start, and says what to do instead."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server import clean_environment, free_port, serve_command
from vllm_vlinders import SUPPORTED_VLLM

LOAD = "from vllm.plugins import load_general_plugins; load_general_plugins(); print('LOADED')"
CALL_ENTRY_POINT = (
    "from importlib.metadata import entry_points; "
    "(point,) = entry_points(group='vllm.general_plugins', name='vlinders'); "
    "point.load()(); print('LOADED')"
)
"""What vLLM does with the plugin, without the seconds that importing vLLM takes."""
PREFIX = "vllm-vlinders: refusing to start: "
DRIFTING = """
from vllm_vlinders.patching import VLLMPatch

class Planted(VLLMPatch["vllm.sampling_params:SamplingParams"]):
    name = "planted"
    feature = "planted"
    process = "any"
    versions = ">=0.28"
    why = upstream = remove_when = "for a test"
    fingerprints = {"0.28.0": {"vllm.sampling_params:SamplingParams.clone": "0" * 16}}

    def clone(self):
        return Planted.original.clone(self)

def register_patches():
    return [Planted]
"""


@dataclass(frozen=True)
class Refusal:
    """A reason not to start, and what the message must say of it."""

    variables: dict[str, str]
    says: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


REFUSALS = {
    "unknown module": Refusal(
        {"VLLM_CUSTOM_PATCHES": "vllm_vlinder"},
        ("VLLM_CUSTOM_PATCHES", "'vllm_vlinder'", "did you mean 'vllm_vlinders'", "installed"),
    ),
    "unknown feature": Refusal(
        {"VLLM_CUSTOM_PATCHES": "vllm_vlinders:priorty"},
        ("VLLM_CUSTOM_PATCHES", "'priorty'", "'vllm_vlinders'", "core", "priority"),
    ),
    "wrong value of a setting": Refusal(
        {"VLINDERS_SCHEDULER__BODY_PRIORITY": "bogus"},
        ("VLINDERS_SCHEDULER__BODY_PRIORITY", "scheduler.body_priority", "'bogus'", "'vlinders'", "'vllm'"),
    ),
    "unknown setting": Refusal(
        {"VLINDERS_SCHEDULER__BODY_PRIORTY": "vllm"},
        (
            "VLINDERS_SCHEDULER__BODY_PRIORTY",
            "scheduler.body_priorty",
            "unknown setting",
            "did you mean 'body_priority'",
        ),
    ),
    "settings file": Refusal(
        {"VLINDERS_CONFIG": "/nonexistent/vlinders.yaml"},
        ("VLINDERS_CONFIG=/nonexistent/vlinders.yaml", "cannot be read"),
    ),
    "drift": Refusal(
        {"VLLM_CUSTOM_PATCHES": "vllm_vlinders,planted_patches"},
        (
            "planted",
            "vllm.sampling_params:SamplingParams.clone",
            "differs from vLLM 0.28.0",
            "Allowed:",
            "VLINDERS_ON_DRIFT=skip",
        ),
        {"planted_patches.py": DRIFTING},
    ),
    "rust front end": Refusal(
        {"VLLM_USE_RUST_FRONTEND": "1"},
        ("VLLM_USE_RUST_FRONTEND is set", "api_server_app_pipeline", "Allowed:", "unset"),
    ),
    "unsupported vLLM": Refusal(
        {},
        ("vllm_vlinders supports vLLM", SUPPORTED_VLLM, "0.20.0", "Install"),
        {
            "vllm-0.20.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.0\n",
            "vllm-0.20.0.dist-info/RECORD": "",
        },
    ),
}


def environment_of(refusal: Refusal, folder: Path) -> dict[str, str]:
    """Return the environment in which `refusal` is due; its files are in `folder`, first on the path."""
    for name, text in refusal.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    variables = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders", "PYTHONPATH": str(folder)}
    return clean_environment(**variables | refusal.variables)


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def check_refused(done: subprocess.CompletedProcess[str], refusal: Refusal) -> None:
    """Check that the process ended with the one message that is due, and nothing else of ours."""
    assert done.returncode == 1, done.stderr
    assert "LOADED" not in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.count(PREFIX) == 1
    message = done.stderr.partition(PREFIX)[2]
    assert [part for part in refusal.says if part not in message] == []


@pytest.mark.parametrize("name", REFUSALS)
def test_start_up_is_refused_with_one_message(name: str, tmp_path: Path) -> None:
    refusal = REFUSALS[name]

    done = run(environment_of(refusal, tmp_path), sys.executable, "-c", CALL_ENTRY_POINT)

    check_refused(done, refusal)


def test_vllm_lets_the_refusal_escape_when_it_loads_its_plugins(tmp_path: Path) -> None:
    refusal = REFUSALS["drift"]

    done = run(environment_of(refusal, tmp_path), sys.executable, "-c", LOAD)

    check_refused(done, refusal)


def test_the_real_server_ends_without_ever_listening(tmp_path: Path) -> None:
    """An audit hook in every process of the server notes each address it binds or listens on."""
    listened = tmp_path / "listened"
    hook = (
        "import sys\n"
        "def note(event, args):\n"
        "    if event == 'socket.bind' and isinstance(args[1], tuple):\n"
        f"        open({str(listened)!r}, 'a').write(str(args[1][1]) + '\\n')\n"
        "sys.addaudithook(note)\n"
    )
    refusal = Refusal({"VLLM_CUSTOM_PATCHES": "vllm_vlinders:priorty"}, (), {"sitecustomize.py": hook})
    port = free_port()

    done = run(environment_of(refusal, tmp_path), *serve_command(port))

    check_refused(done, refusal)
    bound = listened.read_text(encoding="utf-8").split() if listened.exists() else []
    assert str(port) not in bound
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_drift_that_was_accepted_starts_and_says_so(tmp_path: Path) -> None:
    environment = environment_of(REFUSALS["drift"], tmp_path)
    environment |= {"VLINDERS_ON_DRIFT": "warn", "VLINDERS_LOGGING__FORMAT": "json"}

    done = run(environment, sys.executable, "-c", f"{LOAD}; import vllm.sampling_params")

    assert done.returncode == 0, done.stderr
    assert "LOADED" in done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    planted = [line for line in lines if line["patch"] == "planted"]
    assert [(line["state"], line["level"]) for line in planted] == [("applied", "warning")]
    assert "differs from vLLM 0.28.0" in planted[0]["detail"]
