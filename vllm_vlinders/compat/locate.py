"""Where a definition went that is no longer at its place: re-exported, moved or renamed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vllm_vlinders.compat.shape import kind_of, similarity
from vllm_vlinders.patching.fingerprint import SourceTree, statements

_ALIKE = 0.6
"""From here on two definitions are taken for the same one, changed: below it few words are shared."""
_HOPS = 5
_Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Place:
    """Where a definition is now.

    Attributes:
        surface: ``module:qualname``.
        nodes: what binds that name there.
    """

    surface: str
    nodes: list[ast.stmt]


def find_new_place(surface: str, before: SourceTree, after: SourceTree, root: Path) -> Place | None:
    """Return where the definition of `surface` went; None where nothing is like it.

    What stood elsewhere before already is no new place.

    Args:
        surface: where it was.
        before: the sources in which it is there.
        after: the sources in which it is not.
        root: the folder that holds the latter's package.
    """
    old = before.bindings(surface)[-1]
    place = _through_imports(surface, after)
    if place is not None or kind_of(old) == "import":
        return place
    near = [*_namesakes(surface, after, root), *_neighbours(surface, after)]
    owner = _owner(surface)
    ranked = [
        (
            bool(owner) and _owner(found) == owner and _name(found) == _name(surface),
            similarity(old, node),
            found,
        )
        for found, node in near
        if not before.bindings(found)
    ]
    same_owner, alike, found = max(ranked, default=(False, 0.0, ""))
    if alike < _ALIKE and not (same_owner and alike):
        return None
    return Place(found, after.bindings(found))


def _through_imports(surface: str, source: SourceTree) -> Place | None:
    """Follow the import that binds a name, or the class before its last dot, to the definition."""
    module, _, qualname = surface.partition(":")
    for _hop in range(_HOPS):
        first, dot, rest = qualname.partition(".")
        bound = source.bindings(f"{module}:{first}")
        statement = bound[-1] if bound else None
        if not isinstance(statement, ast.ImportFrom):
            break
        module = _imported_module(module, statement, source)
        names = {alias.asname or alias.name: alias.name for alias in statement.names}
        qualname = f"{names[first]}{dot}{rest}"
    found = f"{module}:{qualname}"
    nodes = source.bindings(found) if found != surface else []
    return Place(found, nodes) if nodes else None


def _imported_module(module: str, statement: ast.ImportFrom, source: SourceTree) -> str:
    if not statement.level:
        return statement.module or ""
    path = source.file_of(module)
    is_package = path is not None and path.name == "__init__.py"
    parents = module.split(".")
    kept = parents[: len(parents) - statement.level + is_package]
    return ".".join([*kept, *filter(None, [statement.module])])


def _namesakes(surface: str, source: SourceTree, root: Path) -> Iterator[tuple[str, _Defined]]:
    """Search the whole release for other definitions of the same name."""
    name = _name(surface)
    pattern = re.compile(rb"^\s*(?:async\s+def|def|class)\s+" + name.encode() + rb"\b", re.MULTILINE)
    package = surface.partition(":")[0].partition(".")[0]
    for path in sorted((root / package).rglob("*.py")):
        if pattern.search(path.read_bytes()):
            module = _module_of(path, root)
            for qualname, node in definitions(source.parsed(path)):
                if node.name == name and f"{module}:{qualname}" != surface:
                    yield f"{module}:{qualname}", node


def _neighbours(surface: str, source: SourceTree) -> Iterator[tuple[str, _Defined]]:
    """Search the old module, inside the same class if it was in one, for definitions of another name."""
    module = surface.partition(":")[0]
    path = source.file_of(module)
    for qualname, node in definitions(source.parsed(path)) if path else ():
        found = f"{module}:{qualname}"
        if _owner(found) == _owner(surface) and found != surface:
            yield found, node


def _owner(surface: str) -> str:
    return surface.rpartition(":")[2].rpartition(".")[0]


def _name(surface: str) -> str:
    return surface.rpartition(":")[2].rpartition(".")[2]


def definitions(node: ast.AST, outer: str = "") -> Iterator[tuple[str, _Defined]]:
    """Yield the qualified name and the node of each function and class, those inside classes too."""
    for child in statements(node):
        if isinstance(child, _Defined):
            yield f"{outer}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{outer}{child.name}.")


def _module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
