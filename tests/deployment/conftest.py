"""What is shipped for deployment, held against the real tools that read it."""

from __future__ import annotations

import sys
from pathlib import Path

# The helpers beside this file and those of the integration tests; importlib mode leaves the path alone.
sys.path[:0] = map(str, (Path(__file__).parent, Path(__file__).parents[1] / "integration"))
