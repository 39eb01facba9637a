"""Which programming language a piece of code is in, by its fence or by what its lines look like."""

from __future__ import annotations

import re

UNKNOWN = "text"
"""The language of code that looks like none of those known."""

_ALIASES = {
    "py": "python", "python3": "python", "js": "javascript", "jsx": "javascript", "node": "javascript",
    "ts": "typescript", "tsx": "typescript", "c++": "cpp", "cc": "cpp", "cs": "csharp", "c#": "csharp",
    "golang": "go", "rs": "rust", "rb": "ruby", "sh": "bash", "shell": "bash", "zsh": "bash",
    "mysql": "sql", "postgresql": "sql", "xml": "html", "vue": "html", "svelte": "html",
}  # fmt: skip

_LOOKS = {
    "python": r"^\s*(?:async )?def \w+\(|^\s*class \w+.*:\s*$|^\s*(?:from [\w.]+ )?import [\w.]+|^\s*(?:elif|except)\b.*:"
    r"|^\s*(?:if|for|while|with|try|else)\b[^{;]*:\s*$|\bself\.|^\s*@\w+|\bprint\(|__\w+__|\blambda \w*:|>>> ",
    "javascript": r"\b(?:const|let|var) [\w{\[]|=>|\bfunction\s*\w*\(|console\.log|\brequire\(|document\.|===|\bawait "
    r"|^\s*import .* from ['\"]|^\s*export (?:default|const|function)",
    "typescript": r":\s*(?:string|number|boolean|any|void)\b|\binterface \w+ \{|\bPromise<|\bas (?:const|string)\b"
    r"|^\s*(?:export )?type \w+ =|\buseState<",
    "java": r"\bpublic (?:static |final |class |interface |void |int |String )|System\.out\.|\bimport java|\bnew \w+<.*>\("
    r"|\bprivate (?:static |final )?\w+ \w+|@Override|\bextends \w+|\bthrows \w+",
    "c": r"#include\s*<\w+\.h>|\bprintf\(|\bscanf\(|\bmalloc\(|\bint main\s*\(|\bstruct \w+ \{|\bchar\s*\*|\bsizeof\(|\bvoid \w+\(",
    "cpp": r"#include\s*<\w+>|\bstd::|\bcout\b|\bcin\b|\bvector<|\btemplate\s*<|\busing namespace|\bnullptr\b|::\w+",
    "csharp": r"^\s*using System|Console\.Write|\bnamespace [\w.]+|\bpublic async Task|\bvar \w+ = new|\{ get; |\bIEnumerable<"
    r"|\bDebug\.Log|MonoBehaviour|\bforeach \(",
    "go": r"^\s*func (?:\(\w+ \*?\w+\) )?\w+\(|^\s*package \w+|:=|\bfmt\.\w+|\berr != nil|\bchan \w+|\bgo func",
    "rust": r"\bfn \w+|\blet mut |\bimpl(?:<|\s)|\bpub (?:fn|struct|enum)|println!|\bmatch \w+ \{|&mut |\bSome\(|\.unwrap\(\)|->\s*Result<",
    "ruby": r"^\s*def \w+[?!]?(?:\(.*\))?\s*$|^\s*end\s*$|\bputs |\.each do|\bdo \|\w+|\battr_accessor|^\s*require ['\"]|\bunless ",
    "php": r"<\?php|\$\w+\s*=|\$this->|\becho |->\w+\(",
    "bash": r"^#!/bin/|^\s*(?:sudo|apt|apt-get|pip|npm|docker|kubectl|git|cd|grep|curl|chmod|echo|export) [\w./$\"-]|\bfi\s*$|\bdone\s*$"
    r"|\bthen\s*$|\$\{\w+|\$\(|^\s*\$ \w+",
    "sql": r"(?i:\bselect\b.+\bfrom\b|^\s*select\b|^\s*(?:insert into|create table|alter table|update \w+ set|delete from)\b"
    r"|^\s*(?:group by|order by|(?:left |inner )?join|where)\b)",
    "html": r"</?(?:div|span|html|body|head|p|a|ul|li|table|form|input|button|script|style|h[1-6]|img|section)\b[^>]*>|<!DOCTYPE",
}
_LOOKS_LIKE = {name: re.compile(pattern, re.MULTILINE) for name, pattern in _LOOKS.items()}


def language_of_fence(tag: str) -> str | None:
    """Return the language that the word behind a fence names, None if it names none that is known."""
    tag = tag.lower()
    name = _ALIASES.get(tag, tag)
    return name if name in _LOOKS_LIKE else None


def language_of_code(code: str) -> str:
    """Return the language that code looks most like, ``UNKNOWN`` if like none."""
    best, most = UNKNOWN, 0
    for name, pattern in _LOOKS_LIKE.items():
        found = len(pattern.findall(code))
        if found > most:
            best, most = name, found
    return best
