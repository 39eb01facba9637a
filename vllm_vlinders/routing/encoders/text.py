"""What encoders do to a text before they encode it."""

from __future__ import annotations


def ends(text: str, characters: int) -> str:
    """Return the text, or the two ends of one that is longer, in characters that every tokenizer takes.

    Half characters (lone surrogates), which no encoding knows, become question marks.
    """
    if len(text) > characters:
        half = characters // 2
        text = f"{text[:half]} {text[-half:]}"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
