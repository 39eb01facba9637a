"""A company's own patch package, as examples/acme_patches: built, installed, in force beside ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server import ROOT, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_server")]
EXAMPLE = ROOT / "examples" / "acme_patches"
SCRIPT = Path(__file__).parent / "offline" / "company.py"
NAME = "acme_api_server_sampling_eos"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package, from a copy of its sources."""
    source = tmp_path_factory.mktemp("source") / "acme"
    # setuptools builds in the source folder: keep the repository clean.
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            target = source / path.relative_to(EXAMPLE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source))
    return folder


def run(*command: str, site: Path | None = None, **variables: str) -> str:
    """Run `command` with `site` on the path; return what it printed."""
    if site is not None:
        variables["PYTHONPATH"] = str(site)
    done = subprocess.run(
        command,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_it_takes_effect_beside_our_patches(site: Path) -> None:
    out = run(sys.executable, str(SCRIPT), site=site, VLLM_CUSTOM_PATCHES="vllm_vlinders,acme_patches")

    (line,) = [line for line in out.splitlines() if line.startswith("RESULT ")]
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    assert result["answers"] == 2
    assert result["refused"].startswith("ignore_eos: true is not allowed here; leave it out")
    assert "temperature" in result["vllm_still_checks"]
    assert result["states"][NAME] == "applied"
    assert result["states"]["engine_core_scheduler_queue"] == "applied"
    assert result["file"].endswith("vllm/sampling_params.py")


def test_it_is_listed_with_its_fit(site: Path) -> None:
    command = (sys.executable, "-m", "vllm_vlinders.cli", "patches", "--json")

    rows = json.loads(run(*command, "--select", "acme_patches", site=site))

    assert [(row["patch"], row["module"], row["fit"]) for row in rows] == [(NAME, "acme_patches", "fits")]


def test_a_star_selects_it_too(site: Path) -> None:
    command = (sys.executable, "-m", "vllm_vlinders.cli", "patches", "--json", "--select", "*")

    modules = {row["module"] for row in json.loads(run(*command, site=site))}

    assert modules == {"acme_patches", "vllm_vlinders"}
