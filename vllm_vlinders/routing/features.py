"""A prompt as numbers: its surface, and which of the lexicon's notions it names.

The lexicon (``lexicon.json``) lists the words of many languages for what one can ask for; what the encoder,
whose vocabulary is English, cannot see, these can. Scripts without spaces are searched for the words.
"""

from __future__ import annotations

import json
import re
from functools import cache
from math import log1p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vllm_vlinders.routing.signals import Signals

_LEXICON = Path(__file__).parent / "lexicon.json"
_LEAD_WORDS = 8
"""The notions of the first words count apart: a prompt tends to begin with what it asks for."""
_MANY = 3
_WORD = re.compile(r"[^\W_]+(?:[\u0900-\u0dff]+[^\W_]*)*(?:['\u2019+#-][^\W_]+|[+#]+)*")
"""The vowel signs of India's scripts are no letters to ``re``, but parts of words."""
_SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
_LENGTHS = (4, 40, 120)
_SHAPE = 22
_DEMANDING = "demanding"
"""The notion that is looked for in code, too."""
_CODE_CHARACTERS = 2_000
"""How much of the code is searched for it."""


class Lexicon:
    """Which notions the words of a text stand for."""

    def __init__(self, path: Path = _LEXICON) -> None:
        notions: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        self.names = tuple(notions)
        self._by_word: dict[str, tuple[int, ...]] = {}
        for number, words in enumerate(notions.values()):
            for word in set(words.split()):
                self._by_word[word] = (*self._by_word.get(word, ()), number)
        spaceless = sorted((word for word in self._by_word if _SPACELESS.search(word)), key=len, reverse=True)
        self._spaceless = re.compile("|".join(map(re.escape, spaceless)))

    def words(self, text: str) -> list[str]:
        """Return the words of a text in lower case; of scripts without spaces only those of the lexicon."""
        text = text.lower()
        words: list[str] = _WORD.findall(text)
        if not text.isascii() and _SPACELESS.search(text):
            words = [word for word in words if not _SPACELESS.search(word)] + self._spaceless.findall(text)
        return words

    def demands(self, code: str) -> int:
        """Return how many words of some code, with its comments, name something difficult."""
        wanted = self.names.index(_DEMANDING)
        return sum(wanted in notions for notions in self.notions(self.words(code[:_CODE_CHARACTERS])))

    def notions(self, words: list[str]) -> list[tuple[int, ...]]:
        """Return the numbers of the notions of each word."""
        by_word = self._by_word
        return [by_word[word] for word in words if word in by_word]


@cache
def lexicon() -> Lexicon:
    """Return the lexicon of the package."""
    return Lexicon()


def feature_names() -> list[str]:
    """Return what each number of ``features`` stands for."""
    names = lexicon().names
    shape = [f"shape:{number}" for number in range(_SHAPE)]
    return [*shape, *(f"lead:{name}" for name in names), *(f"any:{name}" for name in names)]


def features(signals: Signals, prose: str, code: str) -> NDArray[np.float32]:
    """Return the numbers, about 0 to 3 each, of a prompt that has been read."""
    known = lexicon()
    words = known.words(prose)
    count = len(known.names)
    row = np.zeros(_SHAPE + 2 * count, dtype=np.float32)
    row[:_SHAPE] = [*_shape(signals, len(words)), log1p(known.demands(code)) if code else 0.0]
    for notions in known.notions(words[:_LEAD_WORDS]):
        for number in notions:
            row[_SHAPE + number] = 1
    for notions in known.notions(words):
        for number in notions:
            row[_SHAPE + count + number] += 1
    np.minimum(row[_SHAPE + count :], _MANY, out=row[_SHAPE + count :])
    return row


def _shape(signals: Signals, prose_words: int) -> list[float]:
    coded = signals.code_language is not None
    return [
        log1p(signals.words) / 2,
        log1p(prose_words) / 2,
        log1p(signals.lines) / 2,
        log1p(signals.sentences) / 2,
        log1p(signals.questions),
        log1p(signals.list_items),
        log1p(signals.numbers),
        log1p(signals.formulas),
        log1p(signals.numbers) * (signals.questions > 0) * (not coded),
        float(coded),
        float(coded and signals.code_incomplete),
        float(coded and prose_words == 0),
        float(coded and prose_words == 0 and signals.code_incomplete),
        log1p(signals.code_depth) if coded else 0.0,
        log1p(signals.code_characters) / 4,
        float(signals.language == "en"),
        float(signals.language == "und"),
        *(float(signals.words >= least) for least in _LENGTHS),
        float(signals.questions > 1),
    ]
