"""What an answer has used, read as it passes: by what it says, else by counting its parts."""

from __future__ import annotations

import json
from typing import Any

_LONGEST_LINE = 1 << 20
_LETTERS_PER_TOKEN = 4
_PROMPT, _OUTPUT = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


class UsageReader:
    """Reads the usage of one answer.

    Attributes:
        prompt: tokens of the prompt; None as long as the answer does not say.
        output: tokens of the answer; None as long as it does not say.
        parts: events of a stream that carry something, about one for each token.
    """

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.output: int | None = None
        self.parts = 0
        self._line = b""

    def read_whole(self, body: bytes) -> None:
        """Read an answer that is not streamed."""
        self._read_json(body)
        if self.output is None:
            self.parts = len(body) // _LETTERS_PER_TOKEN

    def feed(self, chunk: bytes) -> None:
        """Read a part of a stream of events, cut anywhere."""
        lines = (self._line + chunk).split(b"\n")
        self._line = lines.pop()[-_LONGEST_LINE:]
        for line in lines:
            data = line.strip()
            if not data.startswith(b"data:") or data.endswith(b"[DONE]"):
                continue
            self.parts += 1
            if b'"usage"' in data:
                self._read_json(data[5:])

    def _read_json(self, text: bytes) -> None:
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        # Events of /v1/responses and of /v1/messages have it one level deeper.
        for part in (value, value.get("response"), value.get("message")):
            usage = part.get("usage") if isinstance(part, dict) else None
            if isinstance(usage, dict):
                self.prompt = _first(usage, _PROMPT, self.prompt)
                self.output = _first(usage, _OUTPUT, self.output)


def _first(usage: dict[str, Any], names: tuple[str, ...], otherwise: int | None) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return otherwise
