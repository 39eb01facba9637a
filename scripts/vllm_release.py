"""Prepare another vLLM release (CPU build) that runs on the base environment.

``.releases/X.Y.Z`` then holds that release alone; first on ``PYTHONPATH`` it replaces the release
of the virtual environment. Standard library only: ``setup_env.py`` imports it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_VERSION = "0.32.0"
# The environment that has the package may not be made yet, so the import has to come after this.
sys.path.insert(0, str(ROOT))

from vllm_vlinders.compat.runnable import PipError, install_metadata, prepare  # noqa: E402 -- needs the path

__all__ = ["DEFAULT_VERSION", "install_metadata"]


def main() -> None:
    """Prepare the releases named on the command line and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    for version in parser.parse_args().versions:
        try:
            print(prepare(ROOT / ".releases" / version, version))
        except PipError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
