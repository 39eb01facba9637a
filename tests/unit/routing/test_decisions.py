"""The choice of a model, without a server: what must hold of any decision."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.routing import CATEGORIES, Classification, SemanticRouter
from vllm_vlinders.routing.asked import Asked
from vllm_vlinders.routing.facts import Caller, Targets
from vllm_vlinders.routing.policy import Choice
from vllm_vlinders.routing.requirements import Requirements, parse_requirements
from vllm_vlinders.settings import RoutingSettings

STRONG, CHEAP = "vlinders-gpt-4", "vlinders-gpt-3.5"
MODELS: dict[str, Any] = {
    STRONG: {"capabilities": ["complex_reasoning", "code_generation"], "cost": 0.03, "speed": "medium"},
    CHEAP: {"capabilities": ["simple_chat", "quick_completion"], "cost": 0.002, "speed": "fast"},
}
LEVELS = st.sampled_from([None, "low", "medium", "high"])
ABC = st.sets(st.sampled_from(["a", "b", "c"]))


def knows(category: str, complexity: float) -> Any:
    return lambda _prompt: Classification(category, complexity, {category: 1.0})


def router(category: str = "simple_qa", complexity: float = 0.1, **more: Any) -> SemanticRouter:
    return SemanticRouter(**{"models": MODELS, "classify": knows(category, complexity), **more})


def decide(of: SemanticRouter, asked: Asked | None = None, **choice: Any) -> Any:
    targets = Targets(**{name: choice.pop(name) for name in ("load", "usable") if name in choice})
    facts = of.facts(asked or Asked("x"), Caller("acme", "key", "user"), targets=targets)
    return of.policy.decide(facts, Requirements(), Choice(**choice))


def test_the_interface_of_the_specification_runs_as_written() -> None:
    router = SemanticRouter(
        models={
            "vlinders-gpt-4": {
                "capabilities": ["complex_reasoning", "code_generation"],
                "cost": 0.03,
                "speed": "medium",
            },
            "vlinders-gpt-3.5": {
                "capabilities": ["simple_chat", "quick_completion"],
                "cost": 0.002,
                "speed": "fast",
            },
        }
    )
    selected = router.route(
        prompt="Write a complex algorithm for graph traversal",
        requirements={"quality": "high", "cost": "medium"},
    )
    assert selected == "vlinders-gpt-4"
    assert router.route("What is the capital of France?") == "vlinders-gpt-3.5"


@pytest.mark.parametrize(
    ("category", "complexity", "route", "model"),
    [
        ("code_completion", 0.1, "simple_code_completion", CHEAP),
        ("code_generation", 0.9, "complex_code_generation", STRONG),
        ("architecture_design", 0.8, "architecture_design", STRONG),
        ("simple_qa", 0.1, "simple_question", CHEAP),
        ("math", 0.9, "math", STRONG),
    ],
)
def test_the_default_routes_send_hard_work_to_the_strong_model(
    category: str, complexity: float, route: str, model: str
) -> None:
    found = router(category, complexity).explain("x")
    assert (found["route"], found["model"]) == (route, model)


def test_every_category_and_complexity_has_a_default_route() -> None:
    for category in CATEGORIES:
        for complexity in (0.0, 0.5, 1.0):
            assert router(category, complexity).explain("x")["route"]


def test_a_preference_wins_and_must_exist() -> None:
    hard = router("architecture_design", 1.0)
    assert hard.route("x", {"quality": "high"}, preference=CHEAP) == CHEAP
    assert hard.route("x", {"model": CHEAP}) == CHEAP
    with pytest.raises(LookupError, match="no model 'other'"):
        hard.route("x", preference="other")


def test_requirements_turn_the_choice() -> None:
    of = router("analysis", 0.6)
    assert of.route("x", {"cost": "low", "quality": "low"}) == CHEAP
    assert of.route("x", {"quality": "high", "cost": "high"}) == STRONG
    for wrong in ({"quality": "best"}, {"price": "low"}, {"speed": "high"}, {"quality": None}):
        with pytest.raises(ValueError, match="X-Vlinders-Requirements"):
            of.route("x", wrong)  # type: ignore[arg-type]


@hypothesis_settings(deadline=None)
@given(
    st.tuples(st.sampled_from(CATEGORIES), st.floats(0, 1)),
    st.tuples(LEVELS, LEVELS, st.sampled_from([None, "slow", "medium", "fast"])),
    st.tuples(ABC, ABC), st.sampled_from([None, "a", "b", "c"]),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0, 1)),
)  # fmt: skip
def test_a_decision_never_leaves_what_the_caller_may_use(
    kind: tuple[str, float],
    words: tuple[str | None, ...],
    sets: tuple[set[str], set[str]],
    previous: str | None,
    loads: dict[str, float],
) -> None:
    allowed, usable = sets
    models = {"a": {"cost": 3, "fallback": ["c"]}, "b": {"cost": 1}, "c": {"quality": 0.9}}
    routes = [{"name": "pinned", "when": {"category": "math"}, "models": ["b"]}]
    of = router(*kind, models=models, routes=routes)
    given_words = zip(("quality", "cost", "speed"), words, strict=True)
    requirements = parse_requirements({name: word for name, word in given_words if word})
    choice = Choice(allowed.__contains__, previous)
    targets = Targets(lambda name: loads.get(name, 0), usable.__contains__)
    found = of.policy.decide(of.facts(Asked("x"), Caller(), targets=targets), requirements, choice)
    if not allowed:
        assert found is None
        return
    assert found is not None
    assert set(found.order) <= allowed
    assert found.order[0] == found.model
    if found.route is not None and found.route.name == "pinned":
        assert found.order == ("b",)
    elif allowed & usable:
        assert found.model in usable


@hypothesis_settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_harder_prompt_never_gets_a_weaker_model(one: float, other: float) -> None:
    easy, hard = sorted((one, other))
    of = [router("analysis", complexity) for complexity in (easy, hard)]
    strengths = [each.models[each.route("x")].strength for each in of]
    assert strengths[0] <= strengths[1]


def test_a_session_keeps_its_model_until_another_is_better_by_the_margin() -> None:
    alone = decide(router("analysis", 0.6))
    other = CHEAP if alone.model == STRONG else STRONG
    gap = alone.scores[alone.model].total - alone.scores[other].total
    assert gap > 0.02
    kept = decide(router("analysis", 0.6, session_margin=gap + 0.01), previous=other)
    assert (kept.model, kept.reason) == (other, "session")
    small = router("analysis", 0.6, session_margin=gap - 0.01)
    assert decide(small, previous=other).model == alone.model
    long = decide(small, Asked("x", context=1_000_000), previous=other)  # its KV prefix is worth much
    assert (long.model, long.reason) == (other, "session")


def test_a_busy_model_is_passed_by() -> None:
    of = router(models={"one": {}, "two": {}})
    assert decide(of).model == "one"
    assert decide(of, load={"one": 0.9, "two": 0.1}.__getitem__).model == "two"


def test_own_routes_come_first_and_one_that_leaves_the_caller_no_model_is_skipped() -> None:
    routes = [
        {"name": "late", "when": {"characters": {"at_least": 0}}, "models": [CHEAP]},
        {"name": "early", "when": {"tenant": "acme"}, "models": [STRONG], "priority": 1},
    ]
    of = router(routes=routes)
    assert (decide(of).model, decide(of).reason, decide(of).route.name) == (STRONG, "route", "early")
    assert decide(of, may_use=lambda name: name == CHEAP).route.name == "late"
    assert of.route("x") == CHEAP


def test_tenants_have_requirements_of_their_own() -> None:
    of = router(
        "analysis",
        0.6,
        tenants={"thrifty": {"cost": "low", "quality": "low"}, "default": {"quality": "high"}},
    )
    assert of.route("x", tenant="thrifty") == CHEAP
    assert of.route("x", tenant="other") == of.route("x") == STRONG
    assert of.route("x", {"quality": "high", "cost": "high"}, tenant="thrifty") == STRONG


def test_what_stands_in_for_the_model_of_a_route_answers_in_its_place() -> None:
    models = {"a": {}, "b": {}, "c": {"fallback": ["b"]}}
    of = router(models=models, routes=[{"name": "r", "when": {"tenant": "acme"}, "models": ["c"]}])
    assert (decide(of).model, decide(of).reason) == ("c", "route")
    down = decide(of, usable=lambda name: name != "c")
    assert (down.model, down.reason, down.route.name) == ("b", "fallback", "r")


def test_a_route_with_models_is_never_left_for_others() -> None:
    models = {"a": {}, "b": {}, "c": {"fallback": ["d"]}, "d": {}, "e": {"fallback": ["b"]}}
    pinned = {"name": "r", "when": {"tenant": "acme"}, "models": ["c", "e"]}
    of = router(models=models, routes=[pinned])
    assert of.default == "a"
    for usable in ({"a", "b", "c", "d", "e"}, {"a", "e"}, {"a", "d"}, {"a"}, set()):
        found = decide(of, usable=usable.__contains__)
        assert found.route.name == "r"
        targets = usable & {"b", "c", "d", "e"} or {"b", "c", "d", "e"}
        assert set(found.order) == targets
        assert found.model in targets & {"c", "e"} or targets & {"d"}


def test_without_a_route_the_default_answers() -> None:
    of = router("math", 1.0, default_routes=False, default=CHEAP)
    assert (decide(of).model, decide(of).reason) == (CHEAP, "default")


def test_utterances_match_by_meaning() -> None:
    routes = [
        {
            "name": "refunds",
            "utterances": ["I want my money back", "how do I get a refund?"],
            "models": [STRONG],
        },
        {"name": "weather", "description": "questions about the weather", "models": [CHEAP]},
    ]
    of = router(routes=routes)
    assert of.explain("Can I get my money back please, I want a refund")["route"] == "refunds"
    assert of.explain("tell me about the weather")["route"] == "weather"
    assert of.explain("Prove that the square root of two is irrational")["route"] == "simple_question"
    assert of.explain("")["route"] == "simple_question"


PAYING = {
    "name": "paying",
    "utterances": ["I want to pay with my money"],
    "threshold": 0.2,
    "models": [CHEAP],
}
REFUNDS = {"name": "refunds", "utterances": ["I want my money back"], "threshold": 0.2, "models": [STRONG]}
INTERNAL = {"name": "internal", "when": {"tenant": "acme"}, "models": [CHEAP]}


def test_of_routes_that_the_prompt_is_like_the_nearest_matches() -> None:
    for routes in ([PAYING, REFUNDS], [REFUNDS, PAYING]):
        of = router(routes=routes)
        assert of.explain("please give me my money back")["route"] == "refunds"
        assert of.explain("may I pay with this money")["route"] == "paying"
    urgent = router(routes=[REFUNDS, PAYING | {"priority": 1}])
    assert urgent.explain("please give me my money back")["route"] == "paying"


def test_the_nearest_route_does_not_overtake_a_rule_that_comes_before_all_that_are_near() -> None:
    for routes in ([PAYING, INTERNAL, REFUNDS], [INTERNAL, PAYING, REFUNDS]):
        found = router(routes=routes).explain("please give me my money back", tenant="acme")
        assert found["route"] == ("internal" if routes[0] is INTERNAL else "refunds")


ONE = {"models": {"a": {}}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": {}}, "routing.models: name at least one model"),
        ({**ONE, "default": "b"}, "routing.default: there is no model 'b'; there are a"),
        ({**ONE, "auto_names": ["auto", "auto"]}, "routing.auto_names.1: 'auto' is named twice"),
        ({**ONE, "auto_names": ["a"]}, "routing.auto_names.0: 'a' is the name of a model, too"),
        ({"models": {"a": {"fallback": ["a"]}}}, "routing.models.a.fallback.0: 'a' is not another model"),
        ({"models": {"a": {"sped": "fast"}}}, "models.a.sped"),
        ({**ONE, "routes": [{"name": "r"}]}, "needs utterances, a description or a condition"),
        (
            {**ONE, "routes": [{"name": "r", "when": {"turns": 1}, "models": ["b"]}]},
            "routing.routes.0.models.0: there is no model 'b'",
        ),
        (
            {**ONE, "routes": [{"name": "r", "when": {"turns": 1}}] * 2},
            "routing.routes.1.name: 'r' is the name of routes.0, too",
        ),
        (
            {**ONE, "routes": [{"name": "r", "when": {"any": [{"catgory": "math"}]}}]},
            "routing.routes.0.when.any.0.catgory: no signal is named 'catgory'; did you mean 'category'?",
        ),
        (
            {**ONE, "second": {"routes": [{"name": "r", "when": {"category": "maths"}}]}},
            "routing.second.routes.0.when.category: cannot be 'maths'; it is one of code_completion",
        ),
    ],
)
def test_settings_that_do_not_agree_are_refused_with_their_key(settings: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SemanticRouter(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": {"other": {}}}, "routing.models.other: this server serves no such model"),
        ({"default": "other"}, "routing.default: there is no model 'other'; there are base"),
        (
            {"models": {"base": {"upstream": {"urls": ["http://x"]}}}},
            "routing.models.base.upstream: this server",
        ),
        ({"auto_names": ["code"]}, "routing.auto_names.0: 'code' is the name of a model, too"),
    ],
)
def test_a_server_checks_what_it_serves(settings: Any, message: str) -> None:
    section = RoutingSettings.model_validate(settings)
    with pytest.raises(SettingsError) as caught:
        SemanticRouter.of_server(section, ("base", "code"))
    assert message in str(caught.value)


def test_a_server_without_models_in_its_settings_chooses_from_what_it_serves() -> None:
    of = SemanticRouter.of_server(RoutingSettings(), ("base", "code"))
    assert (list(of.models), of.default) == (["base", "code"], "base")
