"""Code in a prompt: where it is, in which language, how deep, and whether it stops mid-way.

Fenced blocks are code; without one, the lines between the first and the last that look like code are.
tree-sitter then parses with the grammar of the language it looks like, and repairs what it cannot parse with
ERROR and MISSING nodes: one on the right edge of the tree means that the code was cut off there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from vllm_vlinders.routing.code_language import UNKNOWN, language_of_code, language_of_fence
from vllm_vlinders.routing.grammar import GRAMMARS, open_brackets, sql_goes_on, structure_of

PARSE_CHARACTERS = 3_000
"""How much code is parsed, from its end: what was cut off shows there."""

_FENCE = re.compile(r"(?<!`)`{3,}[ \t]*([\w+#.-]*)[^\n]{0,200}\n(.*?)(?:```|\Z)", re.DOTALL)
_ENDS_LIKE_CODE = r".*[;{}]\s*$"
_STARTS_LIKE_CODE = (
    r"[ \t]*[})\]]+(?:[;,][;,)]*)?\s*$",
    r"[ \t]{2,}\S.*[:=(),]\s*$",
    r"[ \t]*(?:return|break|continue|pass)\b[^.?!]*$",
    r"[ \t]*(?:def|class|fn|func|function|public|private|const|let|var)\b.*[\w({;:)'\">]\s*$",
    r"[ \t]*(?:#include|import|from \w+ import|using|package)\b.*[\w({;:)'\">]\s*$",
    r"[ \t]*(?:if|for|while|elif|else|try|except|switch|catch)\b.*[:{(]\s*$",
    r"[ \t]*[\w.\[\]'\"]+\s*(?:[-+*/%|&]|:)?=\s*[^=].*$",
    r"[ \t]*[\w.]+\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*;?\s*$",
    r"[ \t]*(?://|/\*|\*/|#|--|@)\s?\S",
    r"[ \t]*</?\w+[^>]*>",
    r"[ \t]*(?:\"{3}|'{3})",
    r">>> |\$ \w+",
    r"[ \t]*(?:SELECT|FROM|WHERE|JOIN|LEFT JOIN|GROUP BY|ORDER BY|INSERT|UPDATE|CREATE|ALTER)\b",
)
_CODE_LINE = re.compile("|".join(_STARTS_LIKE_CODE))
_LIKE_CODE = re.compile("|".join((_ENDS_LIKE_CODE, *_STARTS_LIKE_CODE)))
_SIGN_OF_CODE = re.compile(r"=|\[|\]|\{|\}|;|\((?<=\w\()|SELECT|INSERT|UPDATE|DELETE")
"""Each alternative begins with a character of its own: so `re` jumps from one to the next."""
_MARK = re.compile(
    r"[:?]\s+|[\uff1a\uff1f\u061f\u3002]\s*|(?<=[^\x00-\x7f])[ \t]+(?=[!-~])|(?<=[\u3040-\ud7af])(?=[A-Za-z_])"
)
"""What code can follow on the line of the prose: a mark, or a script that is not that of code."""
_MARKS_PER_LINE = 8
_GOES_ON = re.compile(r"[ \t]+\S|\S{1,12}\s*$|.*[(){};=<>]")
"""A line right below code that belongs to it."""
_PROSE = re.compile(r"^\s*(?:[-*•]\s|\d+[.)]\s)?[A-Z¿¡]?[^\W\d_]+(?:[,;:]? [^\W\d_'\u2019]+){4,}[.?!:,]?\s*$")
_HOLLOW = re.compile(
    r"(?:\"\"\"|''')\s*\Z|^\s*(?:def|class|if|elif|else|for|while|try|except|with|async)\b[^\n]*:\s*\Z"
    r"|(?:\.\.\.|\bpass|(?:#|//)\s*(?:TODO|your code|write your|implement|complete|fill|add your)[^\n]*)\s*[})]*\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Code:
    """The code of a prompt, as it stands there; see ``Signals`` for what the other fields mean."""

    language: str
    incomplete: bool
    depth: int
    text: str


NO_CODE = Code("", incomplete=False, depth=0, text="")


def read_code(text: str) -> tuple[Code, str]:
    """Return the code in a text, ``NO_CODE`` without any, and the text around it."""
    language, code, prose = _fenced(text) or _unfenced(text)
    if not code.strip():
        return NO_CODE, text
    language = language or language_of_code(code)
    tail = code[-PARSE_CHARACTERS:]
    if language in GRAMMARS:
        depth, broken = structure_of(tail, language)
    else:
        depth, broken = 0, sql_goes_on(tail) if language == "sql" else open_brackets(tail) > 0
    incomplete = broken or _HOLLOW.search(tail[-200:]) is not None
    return Code(language or UNKNOWN, incomplete, depth, code), prose


def _fenced(text: str) -> tuple[str | None, str, str] | None:
    if "```" not in text:
        return None
    blocks = [(match[1], match[2]) for match in _FENCE.finditer(text) if match[2].strip()]
    if not blocks:
        return None
    longest = max(blocks, key=lambda block: len(block[1]))
    code = "\n".join(block for _, block in blocks)
    return language_of_fence(longest[0]), code, _FENCE.sub("\n", text)


def _unfenced(text: str) -> tuple[str | None, str, str]:
    lines = text.split("\n")
    if _SIGN_OF_CODE.search(text):
        lines = [part for line in lines for part in _apart(line)]
    marked = [index for index, line in enumerate(lines) if _LIKE_CODE.match(line) and not _PROSE.match(line)]
    if not marked or not _convincing([lines[index] for index in marked]):
        return None, "", text
    first, last = marked[0], marked[-1]
    while last + 1 < len(lines) and _GOES_ON.match(lines[last + 1]):
        last += 1
    code = "\n".join(lines[first : last + 1])
    return None, code, "\n".join([*lines[:first], *lines[last + 1 :]])


def _apart(line: str) -> tuple[str, ...]:
    """Return the prose of a line and the code behind it, or the line if it has not both."""
    if not _SIGN_OF_CODE.search(line) or _CODE_LINE.match(line):
        return (line,)
    for mark in islice(_MARK.finditer(line), _MARKS_PER_LINE):
        rest = line[mark.end() :]
        if (
            _SIGN_OF_CODE.search(rest)
            and _LIKE_CODE.match(rest)
            and not _PROSE.match(rest)
            and _convincing([rest])
        ):
            return line[: mark.end()], rest
    return (line,)


def _convincing(marked: list[str]) -> bool:
    """Say whether lines that may be code are more than a heading, an equation or a command."""
    return len(marked) > 1 or language_of_code(marked[0]) != UNKNOWN
