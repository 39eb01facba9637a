"""The routes that come with it: what each kind of request needs of a model, whichever models there are."""

from __future__ import annotations

from typing import Any

from vllm_vlinders.settings import RequirementSettings, RouteSettings

_COMPLEX, _SIMPLE = {"at_least": 0.5}, {"at_most": 0.5}
_LAST = -100
_CHEAP_AND_FAST = RequirementSettings(quality="low", cost="low", speed="fast")
_STRONG = RequirementSettings(quality="high")
_NONE = RequirementSettings()


def _route(
    name: str, wants: tuple[str, ...], requirements: RequirementSettings, **when: Any
) -> RouteSettings:
    return RouteSettings(name=name, when=when, wants=wants, requirements=requirements, priority=_LAST)


DEFAULT_ROUTES: tuple[RouteSettings, ...] = (
    _route(
        "simple_code_completion", ("quick_completion", "code_completion"), _CHEAP_AND_FAST,
        category="code_completion", complexity=_SIMPLE,
    ),
    _route("code_completion", ("code_completion", "code_generation"), _NONE, category="code_completion"),
    _route(
        "complex_code_generation", ("complex_reasoning", "code_generation"), _STRONG,
        category="code_generation", complexity=_COMPLEX,
    ),
    _route("code_generation", ("code_generation",), _NONE, category="code_generation"),
    _route("code_explanation", ("code_explanation", "code_generation"), _NONE, category="code_explanation"),
    _route(
        "architecture_design", ("complex_reasoning", "architecture_design"), _STRONG,
        category="architecture_design",
    ),
    _route(
        "simple_question", ("simple_chat", "simple_qa"), _CHEAP_AND_FAST,
        category="simple_qa", complexity=_SIMPLE,
    ),
    _route("question", ("simple_qa",), _NONE, category="simple_qa"),
    _route("math", ("math", "complex_reasoning"), _NONE, category="math"),
    _route("creative_writing", ("creative_writing",), _NONE, category="creative_writing"),
    _route("analysis", ("analysis", "complex_reasoning"), _NONE, category="analysis"),
)  # fmt: skip
