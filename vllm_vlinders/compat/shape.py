"""The shape of a definition: what callers see of it, and how that differs between releases."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_HOPELESS = 0.5
"""An upper bound of the likeness below which the costly exact figure is not worth computing."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function, as written."""

    name: str
    kind: str
    default: str
    annotation: str


def kind_of(node: ast.stmt) -> str:
    """Return what a statement binds its name to, in a word."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return "function"
        case ast.ClassDef():
            return "class"
        case ast.Import() | ast.ImportFrom():
            return "import"
        case _:
            return "value"


def differences(old: ast.stmt, new: ast.stmt) -> list[str]:
    """Return one sentence for each difference that callers or subclasses see; none if only bodies differ."""
    if kind_of(old) != kind_of(new):
        return [f"was a {kind_of(old)}, is {_article(kind_of(new))} now"]
    if isinstance(old, _Function) and isinstance(new, _Function):
        return [
            *_decorators(old, new),
            *_colour(old, new),
            *_parameters(parameters(old), parameters(new)),
            *_changed("returns", _text(old.returns), _text(new.returns)),
        ]
    if isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef):
        bases = (", ".join(map(ast.unparse, [*node.bases, *node.keywords])) for node in (old, new))
        return [*_decorators(old, new), *_changed("bases:", *bases), *_members(old, new)]
    return []


def parameters(function: _Function) -> list[Parameter]:
    """Return the parameters of `function`, in order."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    kinds = ["positional-only"] * len(spec.posonlyargs) + ["positional"] * len(spec.args)
    found = [_parameter(*of) for of in zip(positional, kinds, defaults, strict=True)]
    if spec.vararg:
        found.append(_parameter(spec.vararg, "*args", None))
    found += [
        _parameter(arg, "keyword-only", default)
        for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    ]
    if spec.kwarg:
        found.append(_parameter(spec.kwarg, "**options", None))
    return found


def similarity(old: ast.stmt, new: ast.stmt) -> float:
    """Return how alike two definitions are, 0 to 1, names of the definitions themselves aside."""
    if kind_of(old) != kind_of(new):
        return 0.0
    matcher = difflib.SequenceMatcher(None, _words(old), _words(new), autojunk=False)
    return 0.0 if matcher.real_quick_ratio() < _HOPELESS else matcher.ratio()


def _parameter(argument: ast.arg, kind: str, default: ast.expr | None) -> Parameter:
    return Parameter(argument.arg, kind, _text(default), _text(argument.annotation))


def _parameters(old: list[Parameter], new: list[Parameter]) -> Iterator[str]:
    before, after = ({parameter.name: parameter for parameter in side} for side in (old, new))
    gone = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    if len(gone) == len(added) == 1 and _same_place(old, new, gone[0], added[0]):
        yield f"parameter {gone[0]!r} is called {added[0]!r} now"
        after[gone[0]] = after[added[0]]
        gone, added = [], []
    yield from (f"parameter {name!r} is gone" for name in gone)
    for name in added:
        default = after[name].default
        needed = f"default {default}" if default else "required"
        extra = "" if after[name].kind.startswith("*") else f", {needed}"
        yield f"new parameter {name!r} ({after[name].kind}{extra})"
    common = [p.name for p in old if p.name in after and p.name in {q.name for q in new}]
    order = [p.name for p in new if p.name in before]
    if common != order:
        yield f"parameters re-ordered: {', '.join(common)} → {', '.join(order)}"
    for name in (name for name in before if name in after):
        was, now = before[name], after[name]
        yield from _changed(f"kind of {name!r}:", was.kind, now.kind)
        yield from _changed(f"default of {name!r}:", was.default, now.default)
        yield from _changed(f"annotation of {name!r}:", was.annotation, now.annotation)


def _same_place(old: list[Parameter], new: list[Parameter], gone: str, added: str) -> bool:
    places = [
        [(index, p.kind) for index, p in enumerate(side) if p.name == name]
        for side, name in ((old, gone), (new, added))
    ]
    return places[0] == places[1]


def _colour(old: _Function, new: _Function) -> Iterator[str]:
    if isinstance(old, ast.AsyncFunctionDef) != isinstance(new, ast.AsyncFunctionDef):
        yield "is async now" if isinstance(new, ast.AsyncFunctionDef) else "is no longer async"
    if _yields(old) != _yields(new):
        yield "is a generator now" if _yields(new) else "is no longer a generator"


def _yields(function: _Function) -> bool:
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, _Function | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return False


def _decorators(old: _Function | ast.ClassDef, new: _Function | ast.ClassDef) -> Iterator[str]:
    texts = (" ".join(f"@{ast.unparse(item)}" for item in node.decorator_list) for node in (old, new))
    return _changed("decorators:", *texts)


def _members(old: ast.ClassDef, new: ast.ClassDef) -> Iterator[str]:
    before, after = (dict.fromkeys(_names(node)) for node in (old, new))
    gone = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    if gone:
        yield f"without {', '.join(gone)}"
    if added:
        yield f"new: {', '.join(added)}"


def _names(node: ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, _Function | ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            yield child.target.id
        elif isinstance(child, ast.Assign):
            yield from (target.id for target in child.targets if isinstance(target, ast.Name))


def _changed(what: str, old: str, new: str) -> Iterator[str]:
    if old != new:
        yield f"{what} {old or 'none'} → {new or 'none'}"


def _text(node: ast.expr | None) -> str:
    return ast.unparse(node) if node else ""


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _words(node: ast.stmt) -> list[str]:
    words = re.findall(r"\w+|\S", ast.unparse(node))
    name = getattr(node, "name", "")
    return [word for word in words if word != name]
