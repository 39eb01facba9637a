"""The prompts that the classifier learns from, written for this project.

``<category>.<simple|complex>.txt`` holds one prompt a line, in which a backslash and an n stand for a line
break. ``<category>.prompts.txt`` holds what people say to code; ``snippets.txt`` holds such code, apart by
lines of ``%%%``. ``chatter.txt`` holds what people say around a request, behind the code of the language.
``scripts/lesson.py`` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One prompt, its category, and whether it wants a strong model."""

    prompt: str
    category: str
    complex: bool


def written_prompts() -> list[Exemplar]:
    """Return the prompts that stand in the files whole."""
    found = []
    for path in sorted(FOLDER.glob("*.*.txt")):
        category, kind, _ = path.name.split(".")
        if kind in ("simple", "complex"):
            found += [Exemplar(prompt, category, kind == "complex") for prompt in _lines(path)]
    return found


def code_requests(category: str) -> list[str]:
    """Return what people say to code when they want what the category is."""
    return _lines(FOLDER / f"{category}.prompts.txt")


def chatter() -> dict[str, list[str]]:
    """Return sentences that ask for nothing, by language."""
    found: dict[str, list[str]] = {}
    for line in _lines(FOLDER / "chatter.txt"):
        language, _, sentence = line.partition(" ")
        found.setdefault(language, []).append(sentence)
    return found


def snippets() -> list[str]:
    """Return pieces of code, in many languages, all of them whole."""
    return (FOLDER / "snippets.txt").read_text(encoding="utf-8").strip().split("\n%%%\n")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.replace("\\n", "\n") for line in lines if line.strip()]
