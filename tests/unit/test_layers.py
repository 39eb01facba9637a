"""Who may import whom: the directions of docs/architecture.md, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "vllm_vlinders"
LEAVES = {"errors", "database", "lazy_heap", "sinks", "request_context", "settings", "logs", "_version"}
MAY_IMPORT = {
    "errors": set(),
    "_version": set(),
    "request_context": set(),
    "database": {"errors"},
    "settings": {"errors"},
    "sinks": set(),
    "lazy_heap": set(),
    "logs": {"errors", "settings", "sinks"},
    "plugin": {"patching"},
    "scheduling": LEAVES,
    "sessions": LEAVES,
    "metrics": LEAVES,
    "usage": LEAVES,
    "auth": LEAVES,
    "routing": LEAVES,
    "serving": LEAVES | {"auth", "routing", "scheduling", "sessions", "metrics", "usage"},
    "patching": LEAVES,
    "patches": LEAVES | {"patching", "serving", "scheduling", "sessions", "metrics"},
    "compat": LEAVES | {"patching", "plugin"},
    "cli": LEAVES | {"auth", "routing", "patching", "compat", "usage"},
}
MAY_IMPORT_TORCH = {"routing/encoders/minilm.py"}  # When it is used, not when it is imported.
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    own = {name.split(".")[1] for name in imports(path) if name.startswith("vllm_vlinders.")}
    allowed = MAY_IMPORT[part(path)] | {part(path)} | {"__version__", "SUPPORTED_VLLM"}
    assert own <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_vllm_is_imported_by_patches_alone(path: Path) -> None:
    if part(path) != "patches" and path.relative_to(ROOT).as_posix() not in MAY_IMPORT_TORCH:
        assert not {name for name in imports(path) if name.split(".")[0] in ("vllm", "torch", "fastapi")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
