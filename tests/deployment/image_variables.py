"""The environment that the image gives its containers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath

DOCKERFILE = Path(__file__).resolve().parents[2] / "docker" / "Dockerfile"


def image_variables() -> dict[str, str]:
    """Return what the instructions ENV of the Dockerfile set."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    pairs = [part for line in re.findall(r"(?m)^ENV (.+)$", text) for part in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


def state_is_writable(given: dict[str, str], writable: set[str]) -> bool:
    """Tell whether the state folder of a container with these variables is in one of those folders."""
    home = PurePosixPath((image_variables() | given)["XDG_STATE_HOME"])
    return any(home.is_relative_to(folder) for folder in writable)
