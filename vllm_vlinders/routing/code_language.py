"""Which programming language a piece of code is in, by its fence or by the words that give it away."""

from __future__ import annotations

import re

UNKNOWN = "text"
"""The language of code that looks like none of those known."""

_READ = 2_000
_ENOUGH = 2
_ALIASES = {
    "py": "python", "python3": "python", "js": "javascript", "jsx": "javascript", "node": "javascript",
    "ts": "typescript", "tsx": "typescript", "c++": "cpp", "cc": "cpp", "cs": "csharp", "c#": "csharp",
    "golang": "go", "rs": "rust", "rb": "ruby", "sh": "bash", "shell": "bash", "zsh": "bash", "kt": "kotlin",
    "mysql": "sql", "postgresql": "sql", "xml": "html", "vue": "html", "svelte": "html",
}  # fmt: skip

_TELLTALES = {
    "python": {
        5: "__init__ elif __name__ >>>", 4: "def self except", 3: "lambda None np pd torch",
        2: "range raise pass print True False yield", 1: "import from in not is with as len",
    },
    "javascript": {
        4: "console === useState", 3: "document const undefined !==", 2: "let var function => require export async",
        1: "await null new return",
    },
    "typescript": {
        5: "readonly Promise", 4: "interface number", 3: "boolean", 2: "string const => export", 1: "type any",
    },
    "java": {
        5: "Override System.out ArrayList HashMap", 4: "implements throws String", 3: "extends final System public",
        2: "private static void boolean", 1: "new int class import package",
    },
    "c": {5: "malloc scanf", 4: "printf #include", 3: "NULL sizeof struct", 2: "char", 1: "int void -> float double"},
    "cpp": {
        5: "cout std cin nullptr endl", 4: "template #include", 3: "vector :: namespace",
        1: "using auto int const bool",
    },
    "csharp": {
        6: "MonoBehaviour IEnumerable Console", 4: "foreach namespace Task Debug", 3: "using",
        2: "string public private",
        1: "var void class async await new",
    },
    "go": {6: "func fmt chan", 5: ":= nil defer", 3: "package err", 1: "type struct range go"},
    "rust": {
        6: "fn mut impl usize println", 5: "pub unwrap Some", 4: "Vec Option u32 i32", 2: "match let str",
        1: "-> :: use",
    },
    "ruby": {6: "puts attr_accessor elsif", 4: "end unless", 2: "do nil each", 1: "def require"},
    "php": {9: "<?php", 6: "$_POST $_GET $this", 4: "echo", 2: "$ ->"},
    "bash": {9: "#!", 5: "fi esac sudo", 4: "then done grep chmod", 3: "echo cd", 1: "$ do if for"},
    "sql": {
        5: "SELECT VARCHAR HAVING JOIN INSERT", 4: "FROM WHERE GROUP varchar", 3: "select ORDER CREATE TABLE",
        2: "BY join insert", 1: "from where table group",
    },
    "html": {9: "DOCTYPE", 4: "</", 3: "div", 2: "span html body", 1: "class href"},
    "kotlin": {6: "val", 5: "fun suspend", 2: "it when override"},
    "swift": {6: "guard", 3: "func let", 2: "var nil struct"},
    "lua": {7: "local", 3: "end then function"},
}  # fmt: skip
_BY_WORD: dict[str, list[tuple[str, int]]] = {}
for _language, _weighted in _TELLTALES.items():
    for _weight, _words in _weighted.items():
        for _word in _words.split():
            _BY_WORD.setdefault(_word, []).append((_language, _weight))
_WORD = re.compile(r"[#$]?[A-Za-z_]\w*|\$|<\?php|===|!==|=>|:=|->|::|</|>>>|#!")


def language_of_fence(tag: str) -> str | None:
    """Return the language that the word behind a fence names, None if it names none that is known."""
    tag = tag.lower()
    name = _ALIASES.get(tag, tag)
    return name if name in _TELLTALES else None


def language_of_code(code: str) -> str:
    """Return the language that code looks most like, ``UNKNOWN`` if like none."""
    points: dict[str, int] = {}
    seen: set[str] = set()
    for word in _WORD.findall(code, 0, _READ):
        if word in seen:
            continue
        seen.add(word)
        for language, weight in _BY_WORD.get(word, _BY_WORD["$"] if word[0] == "$" else ()):
            points[language] = points.get(language, 0) + weight
    best = max(points, key=points.__getitem__, default=UNKNOWN)
    return best if points.get(best, 0) >= _ENOUGH else UNKNOWN
