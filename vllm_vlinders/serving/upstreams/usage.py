"""What an answer has used, read as it passes: by what it says, else by counting its parts."""

from __future__ import annotations

import json
import re
from typing import Any

_LONGEST_LINE = 1 << 20
_BETWEEN_EVENTS = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LETTERS_PER_TOKEN = 4
_OUTPUT = ("completion_tokens", "output_tokens")
_CACHED = ("cached_tokens", "cache_read_input_tokens")
_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_APART = ("cache_read_input_tokens", "cache_creation_input_tokens")
_BEGINNING = "message_start"


class UsageReader:
    """Reads the usage of one answer.

    Attributes:
        prompt: tokens of the prompt; None as long as the answer does not say.
        cached: of those, the tokens that a prefix cache held, as far as it says.
        output: tokens of the answer; None as long as it does not say.
        parts: events of a stream that carry something, about one for each token.
    """

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.cached = 0
        self.output: int | None = None
        self.parts = 0
        self._only_begun = False
        self._line = b""

    @property
    def used(self) -> int:
        """Tokens of the answer: what it says, else its parts; the more of both where only its beginning says."""
        if self.output is None or self._only_begun:
            return max(self.output or 0, self.parts)
        return self.output

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
                self._read_usage(usage, begins=value.get("type") == _BEGINNING)

    def _read_usage(self, usage: dict[str, Any], *, begins: bool) -> None:
        self.prompt = _prompt(usage, self.prompt)
        output = _first(usage, _OUTPUT, None)
        if output is not None:
            self.output, self._only_begun = output, begins
        for part in (usage, *(usage.get(name) for name in _DETAILS)):
            if isinstance(part, dict):
                self.cached = _first(part, _CACHED, self.cached) or 0


class UsageHider:
    """Takes the event out of a stream that tells the usage, for a client who has not asked for it.

    All other bytes stay as they are; only an event that has not ended is held until it does.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what of the stream so far may be passed on."""
        self._held += chunk
        passed, begin = [], 0
        for between in _BETWEEN_EVENTS.finditer(self._held):
            event = self._held[begin : between.end()]
            begin = between.end()
            if not _tells_usage_only(event):
                passed.append(event)
        self._held = self._held[begin:]
        if len(self._held) > _LONGEST_LINE:
            passed.append(self.rest())
        return b"".join(passed)

    def rest(self) -> bytes:
        """Return what is held; the stream has ended."""
        held, self._held = self._held, b""
        return b"" if _tells_usage_only(held) else held


def _tells_usage_only(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    try:
        value: Any = json.loads(event.strip().removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("choices") == [] and isinstance(value.get("usage"), dict)


def _prompt(usage: dict[str, Any], otherwise: int | None) -> int | None:
    """Return the tokens of the whole prompt; /v1/messages tells those apart that a cache held or took in."""
    whole = _first(usage, ("prompt_tokens",), None)
    if whole is not None:
        return whole
    rest = _first(usage, ("input_tokens",), None)
    return otherwise if rest is None else rest + sum(_first(usage, (name,), 0) or 0 for name in _APART)


def _first(usage: dict[str, Any], names: tuple[str, ...], otherwise: int | None) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return otherwise
