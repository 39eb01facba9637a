"""The structure of code, by tree-sitter's grammars."""

from __future__ import annotations

import importlib
import re
import time
from functools import cache
from threading import Lock

from tree_sitter import Language, Node, Parser, Point, Query, QueryCursor

GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_tsx"),
    "java": ("tree_sitter_java", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "php": ("tree_sitter_php", "language_php_only"),
    "bash": ("tree_sitter_bash", "language"),
    "html": ("tree_sitter_html", "language"),
}
"""For each language that is parsed: the package of its grammar, and the function that gives it.

SQL, whose grammar would be as large as half of all others together, is read without one: see ``sql_goes_on``.
"""

_BLOCKS = frozenset(
    {"block", "statement_block", "compound_statement", "class_body", "declaration_list", "body_statement",
     "switch_body", "enum_body", "interface_body", "match_block", "field_declaration_list", "do_block",
     "element", "do_group"}
)  # fmt: skip
_SQL_GOES_ON = re.compile(
    r"(?:\b(?:SELECT|DISTINCT|FROM|JOIN|ON|WHERE|AND|OR|NOT|IN|LIKE|BETWEEN|GROUP|ORDER|PARTITION|BY|HAVING|LIMIT"
    r"|CASE|WHEN|THEN|ELSE|WITH|AS|UNION|OVER|INSERT|INTO|VALUES|UPDATE|SET|DELETE|CREATE|ALTER|TABLE)|[-,=<>+/|])\s*\Z",
    re.IGNORECASE,
)
_BRACKET = re.compile(r"[()\[\]{}]")
PATIENCE_SECONDS = 0.005
"""Processor time after which no more code is given to a parser."""
_PART_BYTES = 128
_SHORT_BYTES = 512
_one_at_a_time = Lock()


@cache
def _grammar(language: str) -> tuple[Parser, Query | None]:
    package, function = GRAMMARS[language]
    grammar = Language(getattr(importlib.import_module(package), function)())
    kinds = range(grammar.node_kind_count)
    known = {grammar.node_kind_for_id(kind) for kind in kinds if grammar.node_kind_is_named(kind)}
    blocks = " ".join(f"({name})" for name in sorted(_BLOCKS & known))
    return Parser(grammar), Query(grammar, f"[{blocks}] @block") if blocks else None


def load_grammars() -> None:
    """Load all grammars, for which the first code in each language would have to wait."""
    for language in GRAMMARS:
        _grammar(language)


def structure_of(code: str, language: str) -> tuple[int, bool]:
    """Return how deep the blocks of the code are nested, and whether it is cut off at its end.

    What makes no sense in its language can take a parser seconds: it is left alone after `PATIENCE_SECONDS`.

    Args:
        code: any text.
        language: a key of ``GRAMMARS``.
    """
    parser, blocks = _grammar(language)
    text = code.encode("utf-8", "replace")
    with _one_at_a_time:  # a parser calls `_Reading`, and there another thread may get its turn
        reading = _Reading(text)
        root = parser.parse(text if len(text) <= _SHORT_BYTES else reading).root_node
    cut_off = reading.whole and root.has_error and (_broken_at_the_end(root) or open_brackets(code) > 0)
    return (_depth(blocks, root) if blocks else 0), cut_off


class _Reading:
    """Gives a parser the code in small parts, until its time is over.

    Attributes:
        whole: whether it was given all that it asked for.
    """

    def __init__(self, code: bytes) -> None:
        self.whole = True
        self._code = code
        self._ends = time.thread_time() + PATIENCE_SECONDS

    def __call__(self, offset: int, _position: Point) -> bytes:
        self.whole = self.whole and time.thread_time() < self._ends
        return self._code[offset : offset + _PART_BYTES] if self.whole else b""


def open_brackets(code: str) -> int:
    """Return how many brackets of the code are not closed, those in strings and comments among them."""
    return sum(1 if bracket in "([{" else -1 for bracket in _BRACKET.findall(code))


def sql_goes_on(code: str) -> bool:
    """Return whether SQL stops at a word or a sign behind which there must be more, or in open brackets."""
    return _SQL_GOES_ON.search(code) is not None or open_brackets(code) > 0


def _depth(blocks: Query, root: Node) -> int:
    open_ends: list[int] = []
    deepest = 0
    found = QueryCursor(blocks).captures(root).get("block", [])
    for start, end in sorted((node.start_byte, -node.end_byte) for node in found):
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        open_ends.append(-end)
        deepest = max(deepest, len(open_ends))
    return deepest


def _broken_at_the_end(root: Node) -> bool:
    """Say whether the right edge of the tree is an ERROR or a MISSING node."""
    node: Node | None = root
    while node is not None:
        if node.is_error or node.is_missing:
            return True
        node = node.children[-1] if node.child_count else None
    return False
