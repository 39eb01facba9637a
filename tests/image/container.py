"""Containers as a cluster runs them: read-only root, the image's own user, no capabilities."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from typing import Any

WRITABLE = ("--tmpfs", "/tmp", "--tmpfs", "/home/vllm/.cache:mode=1777")


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman; with `check` a failure shows what it said."""
    runtime = ("--runtime", "runc") if shutil.which("runc") else ()
    done = subprocess.run(["podman", *runtime, *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def run(image: str, *arguments: str, options: tuple[str, ...] = (), check: bool = True) -> Any:
    """Run a container of `image` to its end, or with ``--detach`` start it."""
    # No more than this process may have: podman would ask for more, and need a capability for it.
    limits = [("nofile", resource.RLIMIT_NOFILE, 2**20), ("nproc", resource.RLIMIT_NPROC, 2**15)]
    hard = [(name, resource.getrlimit(kind)[1], most) for name, kind, most in limits]
    known = [
        (name, most if limit == resource.RLIM_INFINITY else min(limit, most)) for name, limit, most in hard
    ]
    ulimits = [f"--ulimit={name}={limit}:{limit}" for name, limit in known]
    closed = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host")
    where = (*closed, *WRITABLE, "--shm-size=1g", *ulimits, "--no-healthcheck", *options)
    return podman("run", *where, image, *arguments, check=check)


def shell(image: str, script: str) -> str:
    """Return what `script` prints in a container of `image`."""
    return str(run(image, "-c", script, options=("--rm", "--entrypoint", "sh")).stdout)


def inspect(image: str) -> dict[str, Any]:
    """Return what podman knows of `image`."""
    (found,) = json.loads(podman("image", "inspect", image).stdout)
    return dict(found)
