"""A readable diff of one definition between two releases: its source, without comments and docstrings."""

from __future__ import annotations

import ast
import difflib
import io
import textwrap
import tokenize
from collections.abc import Sequence
from pathlib import Path

_CONTEXT = 3


def readable_diff(old: Sequence[str], new: Sequence[str], old_title: str, new_title: str) -> str:
    """Return the unified diff of two definitions given as lines."""
    return "\n".join(difflib.unified_diff(old, new, old_title, new_title, n=_CONTEXT, lineterm=""))


def code_lines(path: Path, nodes: Sequence[ast.stmt]) -> list[str]:
    """Return the lines of `nodes` in the file `path`: no comments, docstrings or empty lines; dedented."""
    with tokenize.open(path) as file:
        text = file.read()
    kept = _without_comments(text)
    found: list[str] = []
    for node in nodes:
        skipped = set(_docstring_lines(node))
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", ()))])
        lines = [kept[n - 1] for n in range(first, (node.end_lineno or first) + 1) if n not in skipped]
        found += textwrap.dedent("\n".join(line for line in lines if line.strip())).splitlines()
    return found


def _without_comments(text: str) -> list[str]:
    lines = text.split("\n")  # as the parser counts them; splitlines knows more kinds of ends
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return lines


def _docstring_lines(node: ast.stmt) -> list[int]:
    """Return the lines of all docstrings at and below `node`."""
    found: list[int] = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = inner.body[0]
            if ast.get_docstring(inner, clean=False) is not None and len(inner.body) > 1:
                found += range(first.lineno, (first.end_lineno or first.lineno) + 1)
    return found
