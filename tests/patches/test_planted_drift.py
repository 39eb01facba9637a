"""A vLLM that somebody has modified: the server refuses to start and says what differs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from vllm_vlinders.patching.gate import running_vllm_version

MODULE = "v1/core/sched/scheduler.py"
SURFACE = "vllm.v1.core.sched.scheduler:Scheduler.schedule"
CALL_ENTRY_POINT = (
    "from importlib.metadata import entry_points; "
    "(point,) = entry_points(group='vllm.general_plugins', name='vlinders'); "
    "point.load()(); print('LOADED')"
)
"""What vLLM does with the plugin, without the seconds that importing vLLM takes."""


def shadow(folder: Path, old: str, new: str) -> Path:
    """Return a folder with the installed vLLM, made of links but for one file, in which `old` is `new`."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(spec.origin).parent, folder / "vllm", copy_function=os.symlink, ignore=skipped)
    module = folder / "vllm" / MODULE
    text = module.read_text(encoding="utf-8")
    assert old in text
    module.unlink()
    module.write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


def load(folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VLINDERS_")}
    environment = {**kept, "PYTHONPATH": path, "VLLM_CUSTOM_PATCHES": "vllm_vlinders"}
    command = [sys.executable, "-c", CALL_ENTRY_POINT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


DEFINITION = "    def schedule(self"


def test_drift_planted_in_an_installed_vllm_is_refused_with_one_message(tmp_path: Path) -> None:
    done = load(shadow(tmp_path, DEFINITION, f"    @staticmethod\n{DEFINITION}"))

    assert done.returncode == 1, done.stderr
    assert "LOADED" not in done.stdout
    assert "Traceback" not in done.stderr
    message = done.stderr.partition("vllm-vlinders: refusing to start: ")[2]
    assert "has drifted on vLLM" in message
    assert f"{SURFACE} differs from vLLM {running_vllm_version().public}" in message
    for part in (
        "Allowed: the source it was written for",
        "VLINDERS_ON_DRIFT=warn",
        "VLINDERS_ON_DRIFT=skip",
    ):
        assert part in message


@pytest.mark.parametrize("plant", ["    # a comment\n", ""])
def test_a_comment_is_no_drift(tmp_path: Path, plant: str) -> None:
    done = load(shadow(tmp_path, DEFINITION, f"{plant}{DEFINITION}"))

    assert done.returncode == 0, done.stderr
    assert "LOADED" in done.stdout
