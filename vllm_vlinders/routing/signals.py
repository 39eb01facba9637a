"""What can be read off a prompt without understanding it: length, language, shape, code.

Reading looks at no more than ``READ_CHARACTERS`` of a prompt, so that its cost has a bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vllm_vlinders.routing.code import NO_CODE, read_code
from vllm_vlinders.routing.language import language_of

READ_CHARACTERS = 12_000
"""How much of a long prompt is read: two thirds of it from the start, one third from the end."""

_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)]|[a-hA-H][.)])[ \t]+\S", re.MULTILINE)
_QUESTION = re.compile(r"[?\uff1f\u061f]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MATHEMATICAL = re.compile(r"[=^\\$∫∑√∞≤≥≠±\u00d7÷∂∈∀∃]")
_CALCULATION = re.compile(r"[-+*/](?:(?<=\d[-+*/])|(?<=\d\s[-+*/]))\s?\d")
_FORMULA = re.compile(
    r"\\(?:frac|int|sum|sqrt|lim|begin|cdot|times|leq|geq|infty|partial|alpha|beta|theta|pi)\b"
    r"|\$[^$\n]{1,80}\$|[∫∑√∞≤≥≠±\u00d7÷∂∈∀∃]|\b[a-z]\s?\^\s?\d|\d\s?[-+*/^=]\s?\d|\b\d*[a-z]\s?[-+=]\s?\d*[a-z]?\b\s?="
)
_SENTENCE_ENDS = r"[.!?\u3002\uff01\uff1f\u061f]"
_SENTENCE_END = re.compile(rf"(?<!{_SENTENCE_ENDS}){_SENTENCE_ENDS}+(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Signals:
    """The surface of a prompt.

    Attributes:
        characters: length of the prompt.
        words: number of words that spaces part; in scripts without spaces, two characters count as one. Of
            a prompt that is not read whole, what is read is extrapolated.
        lines: number of lines that are not blank.
        sentences: number of sentences in what was read, 0 of an empty text.
        questions: number of question marks in what was read.
        list_items: number of lines that are items of a list, in what was read.
        numbers: number of numbers in what was read, those of code left out.
        formulas: number of places that look like mathematical notation, those of code left out.
        language: ISO 639-1 code of the text around the code, "und" where it cannot be told.
        code_language: programming language of the code in it, None without code; "text" if unknown.
        code_incomplete: whether the code stops mid-way: open brackets, a body that is missing.
        code_depth: how deep the blocks of the code are nested.
        code_characters: length of the code in what was read.
    """

    characters: int
    words: int
    lines: int
    sentences: int
    questions: int
    list_items: int
    numbers: int
    formulas: int
    language: str
    code_language: str | None
    code_incomplete: bool
    code_depth: int
    code_characters: int


def shorten(prompt: str) -> str:
    """Return the prompt, or the start and the end of one that is longer than is read."""
    if len(prompt) <= READ_CHARACTERS:
        return prompt
    head = READ_CHARACTERS * 2 // 3
    return f"{prompt[:head]}\n{prompt[head - READ_CHARACTERS :]}"


def read_signals(prompt: str) -> Signals:
    """Return what the surface of any text says; never raises."""
    return split_signals(prompt)[0]


def split_signals(prompt: str) -> tuple[Signals, str, str]:
    """Return the signals, and what was read: the prose, which is the prompt without its code, and the code."""
    text = shorten(prompt)
    code, prose = read_code(text)
    language = language_of(prose)
    signals = Signals(
        characters=len(prompt),
        words=round(_words(text, language) * len(prompt) / max(len(text), 1)),
        lines=sum(1 for line in text.splitlines() if line.strip()),
        sentences=max(len(_SENTENCE_END.findall(prose)), 1 if prose.strip() else 0),
        questions=len(_QUESTION.findall(prose)),
        list_items=len(_LIST_ITEM.findall(prose)),
        numbers=len(_NUMBER.findall(prose)),
        formulas=len(_FORMULA.findall(prose)) if _hints_at_formulas(prose) else 0,
        language=language,
        code_language=None if code is NO_CODE else code.language,
        code_incomplete=code.incomplete,
        code_depth=code.depth,
        code_characters=len(code.text),
    )
    return signals, prose, code.text


def _hints_at_formulas(prose: str) -> bool:
    return _MATHEMATICAL.search(prose) is not None or _CALCULATION.search(prose) is not None


def _words(text: str, language: str) -> int:
    spaced = len(text.split())
    return max(spaced, len(text) // 2) if language in ("zh", "ja", "th") else spaced
