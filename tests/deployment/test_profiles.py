"""docker/profiles: accepted by vLLM's own parser and by our settings, and each line explained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from vllm_vlinders.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "profiles"
PROFILES = sorted(path.name for path in FOLDER.iterdir())
OLDEST = ROOT / ".releases" / "0.28.0"


def test_there_are_three() -> None:
    assert PROFILES == ["high-throughput", "low-latency", "low-memory"]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make setup")
@pytest.mark.parametrize("release", ["installed", "oldest"])
def test_vllm_s_parser_takes_them(release: str) -> None:
    if release == "oldest" and not OLDEST.is_dir():
        pytest.skip("the oldest release is missing: make release")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CUSTOM_PATCHES": ""}
    if release == "oldest":
        environment["PYTHONPATH"] = os.pathsep.join([str(OLDEST), environment.get("PYTHONPATH", "")])
    files = [FOLDER / profile / "vllm.yaml" for profile in PROFILES]
    script = Path(__file__).parent / "parse_profile.py"

    done = subprocess.run(
        [sys.executable, str(script), *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    for file, line in zip(files, done.stdout.splitlines()[-len(files) :], strict=True):
        wanted = {name.replace("-", "_"): value for name, value in yaml.safe_load(file.read_text()).items()}
        assert {name: json.loads(line)[name] for name in wanted} == wanted


@pytest.mark.parametrize("profile", PROFILES)
def test_our_settings_take_it(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FOLDER / profile / "vlinders.yaml"
    monkeypatch.setenv("VLINDERS_CONFIG", str(file))

    scheduler = load_settings().scheduler.model_dump()

    for key, value in yaml.safe_load(file.read_text())["scheduler"].items():
        got = scheduler[key]
        assert value.items() <= got.items() if isinstance(value, dict) else value == got


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_profile_is_for_stands_in_it(profile: str) -> None:
    for file in (FOLDER / profile).iterdir():
        first, *lines = file.read_text().splitlines()
        assert first.startswith("# ")
        values = [line for line in lines if ":" in line and not line.rstrip().endswith(":")]
        explained = [line for line in values if "#" in line]
        assert len(explained) >= 0.5 * len(values)
