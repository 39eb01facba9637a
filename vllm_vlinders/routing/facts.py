"""The signals: everything that a rule can ask about a request, each found out when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from vllm_vlinders.routing.asked import Asked
from vllm_vlinders.routing.classification import CATEGORIES, Classification
from vllm_vlinders.routing.signals import Signals, read_signals

Kind = Literal["number", "flag", "word", "text"]
Value = float | int | bool | str | None
Classify = Callable[[str], Classification]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; None where it is not known."""

    tenant: str | None = None
    principal: str | None = None
    role: str | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """How the models are at the moment.

    Attributes:
        load: how busy one is, 0 to 1.
        usable: whether one can answer.
    """

    load: Callable[[str], float] = lambda _name: 0.0
    usable: Callable[[str], bool] = lambda _name: True


IDLE = Targets()
"""All can answer, and none is busy."""


@dataclass(slots=True)
class Facts:
    """What is known of one request."""

    asked: Asked
    caller: Caller
    classify: Classify
    load: Callable[[], float] = lambda: 0.0
    targets: Targets = IDLE
    _classification: Classification | None = None
    _signals: Signals | None = None

    @property
    def classification(self) -> Classification:
        """What the prompt asks for."""
        if self._classification is None:
            self._classification = self.classify(self.asked.prompt)
        return self._classification

    @property
    def signals(self) -> Signals:
        """The structure of the prompt."""
        if self._signals is None:
            self._signals = read_signals(self.asked.prompt)
        return self._signals

    def value(self, name: str) -> Value:
        """Return the signal of that name, one of `SIGNALS`."""
        return SIGNALS[name].read(self)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal.

    Attributes:
        kind: what it can be compared with.
        read: finds it out.
        words: all that it can be, where that is known.
    """

    kind: Kind
    read: Callable[[Facts], Value]
    words: tuple[str, ...] = ()


SIGNALS: Mapping[str, Signal] = {
    "category": Signal("word", lambda facts: facts.classification.category, CATEGORIES),
    "complexity": Signal("number", lambda facts: facts.classification.complexity),
    "prompt": Signal("text", lambda facts: facts.asked.prompt),
    "characters": Signal("number", lambda facts: facts.asked.characters),
    "context": Signal("number", lambda facts: facts.asked.context),
    "messages": Signal("number", lambda facts: facts.asked.messages),
    "turns": Signal("number", lambda facts: facts.asked.turns),
    "tools": Signal("flag", lambda facts: facts.asked.tools),
    "images": Signal("flag", lambda facts: facts.asked.images),
    "json_schema": Signal("flag", lambda facts: facts.asked.json_schema),
    "system": Signal("flag", lambda facts: facts.asked.system),
    "stream": Signal("flag", lambda facts: facts.asked.stream),
    "code": Signal("flag", lambda facts: facts.signals.code_characters > 0),
    "code_language": Signal("word", lambda facts: facts.signals.code_language),
    "code_incomplete": Signal("flag", lambda facts: facts.signals.code_incomplete),
    "code_depth": Signal("number", lambda facts: facts.signals.code_depth),
    "code_characters": Signal("number", lambda facts: facts.signals.code_characters),
    "language": Signal("word", lambda facts: facts.signals.language),
    "words": Signal("number", lambda facts: facts.signals.words),
    "tenant": Signal("word", lambda facts: facts.caller.tenant),
    "principal": Signal("word", lambda facts: facts.caller.principal),
    "role": Signal("word", lambda facts: facts.caller.role),
    "load": Signal("number", lambda facts: facts.load()),
}
"""By name. To add one: a line here, and a row in docs/routing.md."""
