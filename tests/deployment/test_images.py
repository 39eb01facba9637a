"""The Dockerfiles: clean, alike, and of the releases that we support."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vllm_vlinders import __version__
from vllm_vlinders.compat.results import OUR_RESULTS, read_results

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cpu", "company-example/Dockerfile")
CACHE = "/home/vllm/.cache"
"""What, but for /tmp, is writable where the root is read-only."""
WRITERS = ("TRITON_CACHE_DIR", "TILELANG_CACHE_DIR", "CUDA_CACHE_PATH", "VLLM_CONFIG_ROOT")
"""What vLLM and its kernels would write elsewhere under HOME: ~/.triton, ~/.tilelang, ~/.nv, ~/.config/vllm."""
TAG = re.compile(r"\b(\d+\.\d+\.\d+)-vllm(\d+\.\d+\.\d+)")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = str(Path(sys.executable).parent / "hadolint")

    done = subprocess.run([hadolint, str(FOLDER / name)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_two_dockerfiles_differ_in_their_base_alone() -> None:
    def without_comments(name: str) -> str:
        lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if not line.startswith("#"))

    cpu = without_comments("Dockerfile.cpu")
    assert cpu.replace("vllm/vllm-openai-cpu:", "vllm/vllm-openai:") == without_comments("Dockerfile")


@pytest.mark.parametrize("name", DOCKERFILES[:2])
def test_all_caches_are_where_a_read_only_root_lets_them_be(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8").replace("\\\n", " ")
    environment = dict(
        part.split("=", 1) for line in re.findall(r"(?m)^ENV (.+)$", text) for part in line.split()
    )
    server = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["vllm"]
    (deployment,) = yaml.safe_load_all(
        (FOLDER / "kubernetes/base/deployment.yaml").read_text(encoding="utf-8")
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert {name for name in WRITERS if not environment.get(name, "").startswith(f"{CACHE}/")} == set()
    assert f"models:{CACHE}" in server["volumes"]
    assert CACHE in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_their_vllm_is_one_that_was_run() -> None:
    known = read_results(OUR_RESULTS)
    for name in DOCKERFILES[:2]:
        text = (FOLDER / name).read_text(encoding="utf-8")
        (default,) = re.findall(r"^ARG VLLM_VERSION=(.+)$", text, re.MULTILINE)
        assert known.rows[default].level is not None


def test_every_tag_names_this_version_and_a_supported_release() -> None:
    known = set(read_results(OUR_RESULTS).releases())
    files = [path for path in (*FOLDER.rglob("*"), *(ROOT / "docs").glob("*.md")) if path.is_file()]
    tags = {tag for path in files for tag in TAG.findall(path.read_text(encoding="utf-8"))}

    assert {ours for ours, _ in tags} == {__version__}
    assert {theirs for _, theirs in tags} <= known


def test_the_start_script_is_a_script(tmp_path: Path) -> None:
    """With a doctor that finds a problem it does not start; else it becomes vllm, arguments as given."""

    def start(code: int) -> subprocess.CompletedProcess[str]:
        for name, script in {"vlinders": f'echo "$@"; exit {code}', "vllm": 'printf "[%s]" "$@"'}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        command = [str(FOLDER / "serve.sh"), "a model", "--port", "1"]
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(command, env=path, capture_output=True, text=True, check=False)

    assert start(0).stdout == "doctor\n[serve][a model][--port][1]"
    refused = start(1)
    assert (refused.returncode, refused.stdout) == (1, "doctor\n")
    assert "not started" in refused.stderr
