"""Step 4: fingerprints of source that a patch replaces or relies on.

Computed from files, without importing or running them, and equal across Python versions: the syntax
tree is walked by field names, with docstrings, positions, comments, formatting and empty fields left
out. Results are cached by the content of the file.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_SCHEME = "2"
"""Of what is hashed. It is part of every fingerprint: with another one, all have to be recorded anew."""
_CACHE_SCHEME = "3"
"""Of what is cached: it rises with `_SCHEME`, and where bindings are searched in another way."""
_CACHE_FILE = "fingerprints.json"
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class SourceTree:
    """The source of a package that is installed, or unpacked somewhere.

    Args:
        root: the folder that holds top-level packages, as ``site-packages``; None for what is installed.
        cache: the folder for cached fingerprints; None for no cache.
    """

    def __init__(self, root: Path | None = None, cache: Path | None = None) -> None:
        self._root = root
        self._cache = _Cache(cache) if cache else None
        self._trees: dict[Path, ast.Module] = {}

    def file_of(self, module: str) -> Path | None:
        """Return the file of a dotted module name, or None; nothing but its top package is looked up."""
        package, *rest = module.split(".")
        for base in self._folders(package):
            path = base.joinpath(*rest)
            for candidate in (path.with_name(path.name + ".py"), path / "__init__.py"):
                if candidate.is_file():
                    return candidate
        return None

    def fingerprint(self, surface: str) -> str | None:
        """Return the fingerprint of ``module:qualname``, or None where it does not exist.

        A name that the module only imports is fingerprinted by the import statement.

        Raises:
            SyntaxError: the file is not Python this interpreter can parse.
        """
        module, _, qualname = surface.partition(":")
        path = self.file_of(module)
        if path is None:
            return None
        if self._cache is None:
            return self._compute(path, qualname)
        return self._cache.get(path, qualname, lambda: self._compute(path, qualname))

    def bindings(self, surface: str) -> list[ast.stmt]:
        """Return all statements that bind ``module:qualname``, in order; none where it does not exist.

        Raises:
            SyntaxError: the file is not Python this interpreter can parse.
        """
        module, _, qualname = surface.partition(":")
        path = self.file_of(module)
        return find_bindings(self.parsed(path), qualname) if path else []

    def parsed(self, path: Path) -> ast.Module:
        """Return the syntax tree of one of its files, read once.

        Raises:
            SyntaxError: the file is not Python this interpreter can parse.
        """
        if path not in self._trees:
            self._trees[path] = ast.parse(path.read_bytes(), path)
        return self._trees[path]

    def save(self) -> None:
        """Write the cache, if there is one."""
        if self._cache is not None:
            self._cache.save()

    def _folders(self, package: str) -> Iterator[Path]:
        if self._root is not None:
            yield self._root / package
            return
        spec = importlib.util.find_spec(package)
        if spec is None:
            return
        for folder in spec.submodule_search_locations or ():
            yield Path(folder)
        if spec.origin and not spec.submodule_search_locations:
            yield Path(spec.origin).with_suffix("")

    def _compute(self, path: Path, qualname: str) -> str | None:
        bindings = find_bindings(self.parsed(path), qualname)
        return fingerprint_nodes(bindings) if bindings else None


def find_bindings(module: ast.Module, qualname: str) -> list[ast.stmt]:
    """Return all statements of `module` that bind `qualname` (dotted), in order.

    There are several where a property has a setter, or an ``if`` chooses between definitions.
    """
    *outer, last = qualname.split(".")
    node: ast.AST = module
    for name in outer:
        found = [child for child in statements(node) if _binds(child, name)]
        if not found:
            return []
        node = found[-1]
    return [child for child in statements(node) if _binds(child, last)]


def fingerprint_nodes(nodes: Iterable[ast.AST]) -> str:
    """Return 16 hexadecimal digits that change when the meaning of the source of `nodes` may have."""
    digest = hashlib.sha256(_SCHEME.encode())
    for token in _tokens(list(nodes)):
        digest.update(token.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of a body, also those under ``if``, ``try`` and ``with``."""
    for field in ("body", "orelse", "finalbody", "handlers"):
        for child in getattr(node, field, ()):
            if isinstance(child, ast.stmt):
                yield child
            if isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):
                yield from statements(child)


def _binds(statement: ast.stmt, name: str) -> bool:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return statement.name == name
        case ast.Import() | ast.ImportFrom():
            return any((alias.asname or alias.name) == name for alias in statement.names)
        case ast.Assign():
            return any(isinstance(t, ast.Name) and t.id == name for t in statement.targets)
        case ast.AnnAssign():
            return isinstance(statement.target, ast.Name) and statement.target.id == name
        case _:
            return False


def _tokens(value: Any) -> Iterator[str]:
    if isinstance(value, ast.JoinedStr):
        yield "JoinedStr"
        for part in _merged_text(value.values):
            yield from _tokens(part)
    elif isinstance(value, ast.AST):
        yield type(value).__name__
        for field in sorted(value._fields):
            child = getattr(value, field, None)
            if field == "body" and isinstance(value, _Documented):
                child = _without_docstring(value)
            if field in ("kind", "type_comment", "ctx") or child is None or child == []:
                continue
            yield field
            yield from _tokens(child)
    elif isinstance(value, list):
        yield "["
        for item in value:
            yield from _tokens(item)
        yield "]"
    else:
        yield f"{type(value).__name__}:{value!r}"


def _merged_text(values: list[ast.expr]) -> Iterator[ast.expr | str]:
    """Join neighbouring text of an f-string: where it is split differs between Python versions."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text += value.value
            continue
        if text:
            yield text
        text = ""
        yield value
    if text:
        yield text


def _without_docstring(node: _Documented) -> list[ast.stmt]:
    first = node.body[0] if node.body else None
    is_text = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return node.body[1:] if is_text else node.body


class _Cache:
    """Fingerprints by content of the file, in one JSON file; unreadable or unwritable means no cache."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _CACHE_FILE
        self._entries = self._read()
        self._keys: dict[Path, str] = {}
        self._dirty = False

    def get(self, path: Path, qualname: str, compute: Any) -> str | None:
        if path not in self._keys:
            self._keys[path] = f"{_CACHE_SCHEME}:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        key = self._keys[path]
        known = self._entries.setdefault(key, {})
        if qualname not in known:
            known[qualname] = compute()
            self._dirty = True
        return known[qualname]

    def save(self) -> None:
        if not self._dirty:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self._path.parent, delete=False, encoding="utf-8"
            ) as file:
                json.dump(self._entries, file)
            Path(file.name).replace(self._path)
        except OSError:
            return
        self._dirty = False

    def _read(self) -> dict[str, dict[str, str | None]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def cache_folder() -> Path | None:
    """Return where fingerprints are cached: under ``XDG_CACHE_HOME`` or ``HOME``; without them, nowhere."""
    configured, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
    if not (configured or home):
        return None
    base = Path(configured) if configured else Path(str(home)) / ".cache"
    return base / "vllm-vlinders"
