"""What a request body asks, whichever endpoint it was sent to: the text to classify, and its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
PATHS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
"""The endpoints whose requests are routed."""
MOST_CHARACTERS = 16_000
"""How much of a prompt is looked at: its beginning and its end, half of this each."""
_MOST_PARTS = 20_000
_IMAGES = frozenset({"image", "image_url", "input_image", "video_url", "video"})
_SCHEMA_FIELDS = ("guided_json", "structured_outputs", "output_config")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        prompt: the last text of a user, shortened to `MOST_CHARACTERS`.
        characters: of that text, before it was shortened.
        context: characters of all that stands before it.
        messages: how many messages there are.
        turns: how many of them are a user's; the result of a tool is not.
        tools: whether tools are offered.
        images: whether there are pictures or films in it.
        json_schema: whether the answer must have a given form.
        system: whether there is a system prompt.
        stream: whether the answer is to be streamed.
    """

    prompt: str = ""
    characters: int = 0
    context: int = 0
    messages: int = 0
    turns: int = 0
    tools: bool = False
    images: bool = False
    json_schema: bool = False
    system: bool = False
    stream: bool = False


def of_prompt(prompt: str) -> Asked:
    """Return a single prompt as a request."""
    return Asked(prompt=shorten(prompt), characters=len(prompt), messages=1, turns=1)


def read_asked(path: str, payload: Mapping[str, Any]) -> Asked:
    """Read a request body of any form; what is not understood counts as absent.

    Args:
        path: one of `PATHS`.
        payload: the body.
    """
    reading = _Reading()
    if path == COMPLETIONS:
        prompt = _text_of_prompt(payload.get("prompt"))
        messages: Sequence[Any] = [{"role": "user", "content": prompt}]
    elif path == RESPONSES:
        given = payload.get("input")
        messages = given if isinstance(given, list) else [{"role": "user", "content": given}]
    else:
        given = payload.get("messages")
        messages = given if isinstance(given, list) else []
    return reading.read(messages, payload)


def shorten(text: str) -> str:
    """Return the beginning and the end of a long text."""
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]}\n{text[-half:]}"


def _text_of_prompt(prompt: Any) -> Any:
    return prompt[0] if isinstance(prompt, list) and prompt and isinstance(prompt[0], str) else prompt


def _from_the_last(messages: Sequence[Any]) -> Iterator[Any]:
    """Yield the messages, the last first; results of tools that /v1/messages has in a user's as chat has them."""
    for message in reversed(messages):
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else []
        results = [part for part in parts if _is_result(part)]
        if not results:
            yield message
            continue
        said = [part for part in parts if not _is_result(part)]
        if said:
            yield {**message, "content": said}
        for result in reversed(results):
            yield {**result, "role": "tool"}


def _is_result(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "tool_result"


class _Reading:
    """Walks through messages; bounded, whatever their form."""

    def __init__(self) -> None:
        self._parts_left = _MOST_PARTS
        self._images = False

    def read(self, messages: Sequence[Any], payload: Mapping[str, Any]) -> Asked:
        last: str | None = None
        context = turns = 0
        system = bool(payload.get("system") or payload.get("instructions"))
        number = 0
        for message in _from_the_last(messages):  # should there be too many, those that count are read
            number += 1
            if not isinstance(message, dict):
                continue
            role = message.get("role")
            texts = list(self._texts(message.get("content")))
            turns += role == "user" and bool(texts)
            if role == "user" and texts and last is None:
                last = "\n".join(texts)
            else:
                context += sum(map(len, texts))
            system = system or role in ("system", "developer")
        context += sum(len(text) for text in self._texts(payload.get("system")))
        return Asked(
            prompt=shorten(last or ""),
            characters=len(last or ""),
            context=context,
            messages=number,
            turns=turns,
            tools=bool(payload.get("tools") or payload.get("functions")),
            images=self._images,
            json_schema=_wants_form(payload),
            system=system,
            stream=payload.get("stream") is True,
        )

    def _texts(self, content: Any) -> Iterator[str]:
        """Yield the texts in a content, in order: a string, or parts that may have parts themselves."""
        pending = [content]
        while pending and self._parts_left > 0:
            part = pending.pop()
            self._parts_left -= 1
            if isinstance(part, str):
                if part:
                    yield part
            elif isinstance(part, list):
                pending.extend(reversed(part[: self._parts_left]))
            elif isinstance(part, dict):
                kind = part.get("type")
                self._images = self._images or (isinstance(kind, str) and kind in _IMAGES)
                pending.append(part["text"] if isinstance(part.get("text"), str) else part.get("content"))


def _wants_form(payload: Mapping[str, Any]) -> bool:
    text = payload.get("text")
    for form in (payload.get("response_format"), text.get("format") if isinstance(text, dict) else None):
        if isinstance(form, dict) and form.get("type") not in (None, "text"):
            return True
    return any(payload.get(field) for field in _SCHEMA_FIELDS)
