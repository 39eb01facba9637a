"""One surface of a patch in one release: what became of it since the release it was recorded for."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from enum import StrEnum

from vllm_vlinders.compat.diff import code_lines, readable_diff
from vllm_vlinders.compat.locate import find_new_place
from vllm_vlinders.compat.shape import differences, kind_of
from vllm_vlinders.compat.sources import Release
from vllm_vlinders.patching.fingerprint import SourceTree, fingerprint_nodes


class Change(StrEnum):
    """What became of a surface."""

    UNCHANGED = "unchanged"
    BODY = "body changed"
    SIGNATURE = "signature changed"
    MOVED = "moved"
    GONE = "gone"
    CHANGED = "changed"  # how, cannot be told: the sources to compare with are out of reach
    UNRECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class SurfaceFinding:
    """What became of a surface.

    Attributes:
        surface: ``module:qualname``.
        change: in a word.
        compared_with: the recorded release it was held against; empty where none is recorded.
        detail: how the signature differs, or where it went.
        diff: of just this definition, where it is still to be found and its body differs.
    """

    surface: str
    change: Change
    compared_with: str = ""
    detail: str = ""
    diff: str = ""


def explain(surface: str, was: Release, now: Release, trees: tuple[SourceTree, SourceTree]) -> SurfaceFinding:
    """Say how a surface of `was`, known to have changed, differs in `now`.

    Args:
        surface: ``module:qualname``.
        was: the release it was recorded for.
        now: the release in question.
        trees: the sources of both.
    """
    before, after = trees
    old, new = before.bindings(surface), after.bindings(surface)
    place, moved = surface, False
    if old and not (new and kind_of(old[-1]) == kind_of(new[-1])):
        found = find_new_place(surface, before, after, now.root)
        if found is not None:
            place, new, moved = found.surface, found.nodes, True
    compared = str(was.version)
    if not old:
        return SurfaceFinding(surface, Change.CHANGED, compared, f"vLLM {compared} has none")
    if not new:
        return SurfaceFinding(surface, Change.GONE, compared)
    notes = _differences(old, new)
    titles = (f"vLLM {was.version} {surface}", f"vLLM {now.version} {place}")
    lines = (_lines(before, surface, old), _lines(after, place, new))
    diff = readable_diff(*lines, *titles)
    if not moved:
        return SurfaceFinding(
            surface, Change.SIGNATURE if notes else Change.BODY, compared, "; ".join(notes), diff
        )
    same = fingerprint_nodes(old) == fingerprint_nodes(new)
    notes = [f"to {place}", *(["unchanged there"] if same else notes or ["its body changed"])]
    return SurfaceFinding(surface, Change.MOVED, compared, "; ".join(notes), "" if same else diff)


def _differences(old: list[ast.stmt], new: list[ast.stmt]) -> list[str]:
    """Return what callers see of all bindings of a name: overloads, property functions, branches of an ``if``."""
    if len(old) != len(new):
        return [f"definitions: {len(old)} → {len(new)}", *differences(old[-1], new[-1])]
    notes = (note for pair in zip(old, new, strict=True) for note in differences(*pair))
    return list(dict.fromkeys(notes))


def _lines(tree: SourceTree, surface: str, nodes: list[ast.stmt]) -> list[str]:
    path = tree.file_of(surface.partition(":")[0])
    return code_lines(path, nodes) if path else []
