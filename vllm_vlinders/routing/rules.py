"""Conditions on signals: ``all``, ``any``, ``not``, and comparisons, checked before they are used."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.routing.encoders import Encoder
from vllm_vlinders.routing.facts import SIGNALS, Facts, Signal
from vllm_vlinders.routing.similarity import Similarity
from vllm_vlinders.settings import RouteSettings

Condition = Callable[[Facts], bool]
_DEEPEST = 32
# Of scripts written without spaces: Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_WITHOUT_SPACES = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{_WITHOUT_SPACES}]")
_SPACED_LETTER = rf"[^\W{_WITHOUT_SPACES}]"


@dataclass(frozen=True, slots=True)
class Known:
    """What rules can name beside signals.

    Attributes:
        models: the names of all models.
        encoder: returns what turns texts into vectors; called only where there are any.
    """

    models: tuple[str, ...]
    encoder: Callable[[], Encoder]


def compile_rule(rule: Any, path: str, known: Known, depth: int = 0) -> Condition:
    """Return the condition that `rule` describes.

    Args:
        rule: a mapping; with several keys, all must hold.
        path: the dotted key of the rule, for messages.
        known: what it can name beside signals.
        depth: how many rules it is inside of.

    Raises:
        SettingsError: it names no signal, or compares one with what it cannot be.
    """
    if not isinstance(rule, Mapping) or not rule:
        raise SettingsError(f"{path}: expected all, any, not, or signals and what they must be; got {rule!r}")
    if depth > _DEEPEST:
        raise SettingsError(f"{path}: more than {_DEEPEST} rules inside of each other")
    parts = [_part(str(name), value, f"{path}.{name}", known, depth) for name, value in rule.items()]
    return parts[0] if len(parts) == 1 else lambda facts: all(part(facts) for part in parts)


def _part(name: str, value: Any, path: str, known: Known, depth: int) -> Condition:
    if name in ("all", "any"):
        if not isinstance(value, list) or not value:
            raise SettingsError(f"{path}: expected a list of rules, got {value!r}")
        parts = [compile_rule(rule, f"{path}.{place}", known, depth + 1) for place, rule in enumerate(value)]
        together = all if name == "all" else any
        return lambda facts: together(part(facts) for part in parts)
    if name == "not":
        inner = compile_rule(value, path, known, depth + 1)
        return lambda facts: not inner(facts)
    if name in _OTHERS:
        return _OTHERS[name](value, path, known)
    signal = SIGNALS.get(name)
    if signal is None:
        names = [*SIGNALS, *_OTHERS]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SettingsError(f"{path}: no signal is named {name!r}; {hint}there are {', '.join(names)}")
    holds = _TESTS[signal.kind](signal, value, path)
    return lambda facts: holds(facts.value(name))


def _like(value: Any, path: str, known: Known) -> Condition:
    """Return whether the prompt is like one of some texts, as it must be like a route's utterances."""
    given = value if isinstance(value, Mapping) else {}
    texts = given.get("texts")
    if not _are_texts(texts) or set(given) - {"texts", "threshold"}:
        raise SettingsError(f"{path}: expected texts: [TEXTS], and threshold if it is not 0.6; got {value!r}")
    try:
        threshold = {name: given[name] for name in given if name != "texts"}
        route = RouteSettings.model_validate({"name": "like", "utterances": texts, **threshold})
    except ValidationError as error:
        detail = error.errors()[0]
        raise SettingsError(f"{path}.{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None
    similarity = Similarity([route], known.encoder)
    return lambda facts: bool(similarity.near(facts))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.strip() for v in value)


def _model_load(value: Any, path: str, known: Known) -> Condition:
    """Return whether models are as busy as told, each by its name."""
    if not isinstance(value, Mapping) or not value:
        raise SettingsError(
            f"{path}: expected the names of models, each with at_least, at_most; got {value!r}"
        )
    _check_models(value, path, known)
    holds = {name: _number(SIGNALS["load"], bounds, f"{path}.{name}") for name, bounds in value.items()}
    return lambda facts: all(test(facts.targets.load(name)) for name, test in holds.items())


def _model_up(value: Any, path: str, known: Known) -> Condition:
    """Return whether a model, or each of several, can answer."""
    names = value if isinstance(value, list) and value else [value]
    _check_models(names, path, known)
    return lambda facts: all(map(facts.targets.usable, names))


def _check_models(names: Iterable[Any], path: str, known: Known) -> None:
    for name in names:
        if name not in known.models:
            raise SettingsError(f"{path}: there is no model {name!r}; there are {', '.join(known.models)}")


_OTHERS = {"like": _like, "model_load": _model_load, "model_up": _model_up}
"""Conditions that are no comparison of one signal."""


def _number(_signal: Signal, value: Any, path: str) -> Callable[[Any], bool]:
    if _is_number(value):
        return lambda found: bool(found == value)
    bounds = value if isinstance(value, Mapping) else {}
    if not bounds or set(bounds) - {"at_least", "at_most"} or not all(map(_is_number, bounds.values())):
        raise SettingsError(f"{path}: expected a number, or at_least and at_most; got {value!r}")
    least, most = bounds.get("at_least", float("-inf")), bounds.get("at_most", float("inf"))
    return lambda found: bool(least <= found <= most)


def _flag(_signal: Signal, value: Any, path: str) -> Callable[[Any], bool]:
    if not isinstance(value, bool):
        raise SettingsError(f"{path}: expected true or false, got {value!r}")
    return lambda found: bool(found) is value


def _word(signal: Signal, value: Any, path: str) -> Callable[[Any], bool]:
    words = value if isinstance(value, list) else [value]
    if not words or not all(isinstance(word, str) for word in words):
        raise SettingsError(f"{path}: expected a word or a list of words, got {value!r}")
    unknown = set(words) - set(signal.words) if signal.words else set()
    if unknown:
        raise SettingsError(f"{path}: cannot be {min(unknown)!r}; it is one of {', '.join(signal.words)}")
    wanted = frozenset(words)
    return lambda found: found in wanted


def _text(_signal: Signal, value: Any, path: str) -> Callable[[Any], bool]:
    form: str
    wanted: Any
    form, wanted = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", None)
    if form == "matches" and isinstance(wanted, str):
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise SettingsError(f"{path}.matches: not a regular expression: {error}") from None
        return lambda found: pattern.search(found) is not None
    words = wanted if isinstance(wanted, list) else [wanted]
    if form == "contains" and words and all(isinstance(word, str) and word for word in words):
        whole = re.compile("|".join(map(_whole_word, words)), re.IGNORECASE)
        return lambda found: whole.search(found) is not None
    raise SettingsError(f"{path}: expected matches: REGULAR EXPRESSION, or contains: [WORDS]; got {value!r}")


def _whole_word(word: str) -> str:
    """Return the pattern of `word` where it is no part of a longer one, as far as its script has such bounds."""
    before = "" if _UNSPACED.match(word[0]) else f"(?<!{_SPACED_LETTER})"
    after = "" if _UNSPACED.match(word[-1]) else f"(?!{_SPACED_LETTER})"
    return f"{before}{re.escape(word)}{after}"


_TESTS = {"number": _number, "flag": _flag, "word": _word, "text": _text}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
