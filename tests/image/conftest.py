"""The images, built for real and once for all tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELPERS = (Path(__file__).parent, ROOT / "scripts", ROOT / "tests" / "integration")
sys.path[:0] = map(str, HELPERS)  # importlib mode leaves the path alone


@pytest.fixture(scope="session")
def names() -> dict[str, str]:
    """The names of the images, built from this checkout; the base is built where it is missing."""
    from images import tags
    from vllm_release import DEFAULT_VERSION

    subprocess.run([sys.executable, str(ROOT / "scripts" / "images.py")], check=True)
    return tags(DEFAULT_VERSION)
