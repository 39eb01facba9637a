"""What is asked of a model: by the caller, the tenant, the route and the settings, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from vllm_vlinders.errors import InvalidRequirementsError
from vllm_vlinders.settings import RequirementSettings
from vllm_vlinders.settings.routing import Level, Speed

HEADER = "X-Vlinders-Requirements"
_WORDS: Mapping[str, tuple[str, ...]] = {
    "quality": get_args(Level),
    "cost": get_args(Level),
    "speed": get_args(Speed),
}
_PREFERENCE = "model"
NO_LEVELS = RequirementSettings()


@dataclass(frozen=True, slots=True)
class Requirements:
    """Those of one caller.

    Attributes:
        levels: as in the settings.
        model: the model that the caller prefers, or None.
    """

    levels: RequirementSettings = NO_LEVELS
    model: str | None = None


NONE = Requirements()


def parse_header(text: str) -> Requirements:
    """Read the header's value: ``quality=high, cost=low, model=NAME``.

    Raises:
        InvalidRequirementsError: it is not of that form, or has a word that is not allowed.
    """
    given: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = (part.strip() for part in item.partition("="))
        if not separator or name in given:
            what = "is given twice" if separator else "has no value"
            raise _refusal(f"{name[:40]!r} {what}")
        given[name] = value
    return parse_requirements(given)


def parse_requirements(given: Mapping[str, Any]) -> Requirements:
    """Check requirements that are given as a mapping.

    Raises:
        InvalidRequirementsError: a name or a word is not allowed.
    """
    levels: dict[str, str] = {}
    for name, value in given.items():
        if name == _PREFERENCE and isinstance(value, str) and value:
            continue
        allowed = _WORDS.get(name)
        if allowed is None:
            raise _refusal(f"there is no {name[:40]!r}: use {', '.join(_WORDS)} or {_PREFERENCE}")
        if value not in allowed:
            raise _refusal(f"{name} may be {', '.join(allowed)}, not {str(value)[:40]!r}")
        levels[name] = value
    return Requirements(RequirementSettings.model_validate(levels), given.get(_PREFERENCE))


def _refusal(what: str) -> InvalidRequirementsError:
    return InvalidRequirementsError(f"{HEADER}: {what}", param=HEADER, code="invalid_requirements")
