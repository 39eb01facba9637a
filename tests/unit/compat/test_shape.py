"""What callers and subclasses see of a definition, and its lines as a person reads them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vllm_vlinders.compat.diff import code_lines
from vllm_vlinders.compat.shape import differences, similarity

CLASS = "class C(Base, metaclass=M):\n    x: int = 1\n    y = 2\n    def f(self): ...\n"


def only(source: str) -> ast.stmt:
    (node,) = ast.parse(source).body
    return node


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (CLASS, CLASS.replace("1", "3"), []),
        (CLASS, CLASS.replace("Base", "Other"), ["bases: Base, metaclass=M → Other, metaclass=M"]),
        (CLASS, CLASS.replace("x: int", "z: int"), ["without x", "new: z"]),
        (CLASS, f"@dataclass\n{CLASS}", ["decorators: none → @dataclass"]),
        ("x = 1", "x = 2", []),
        ("x = 1", "from a import x", ["was a value, is an import now"]),
        ("def f(a, /, b): ...", "def f(a, b): ...", ["kind of 'a': positional-only → positional"]),
        ("def f(*a, **b): ...", "def f(): ...", ["parameter 'a' is gone", "parameter 'b' is gone"]),
        (
            "def f(): ...",
            "def f(*a, **b): ...",
            ["new parameter 'a' (*args)", "new parameter 'b' (**options)"],
        ),
        ("async def f(): ...", "def f(): ...", ["is no longer async"]),
        ("def f():\n    yield", "def f():\n    def g(): yield\n    return g", ["is no longer a generator"]),
        ("def f(): ...", "def f():\n    return 1", []),
    ],
)
def test_differences_that_can_be_seen_from_outside(old: str, new: str, said: list[str]) -> None:
    assert differences(only(old), only(new)) == said
    assert differences(only(old), only(old)) == []


def test_definitions_are_alike_whatever_they_are_called() -> None:
    body = "(self, a): return sorted(a + self.c)\n"
    assert similarity(only(f"def f{body}"), only(f"def g{body}")) == 1
    assert similarity(only(f"def f{body}"), only(f"class f:\n    def f{body}")) == 0
    assert similarity(only(f"def f{body}"), only("def f(): raise NotImplementedError")) < 0.6


def test_the_lines_of_a_definition_are_without_comments_docstrings_and_margins(tmp_path: Path) -> None:
    source = '''class C:
    @decorated  # why
    def f(self, a="# no comment"):
        """Say.

        More.
        """
        # a comment

        def g():
            """Only this."""

        return a  # the end
'''
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.ClassDef)

    assert code_lines(path, node.body) == [
        "@decorated",
        'def f(self, a="# no comment"):',
        "    def g():",
        '        """Only this."""',
        "    return a",
    ]
