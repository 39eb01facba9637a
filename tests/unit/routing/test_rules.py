"""Conditions on signals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_vlinders.errors import SettingsError
from vllm_vlinders.routing import Classification
from vllm_vlinders.routing.asked import Asked
from vllm_vlinders.routing.encoders import create_encoder
from vllm_vlinders.routing.facts import SIGNALS, Caller, Facts, Targets
from vllm_vlinders.routing.rules import Known, compile_rule

FACTS = Facts(
    Asked(
        "Fix this SQL query, please:\n```python\ndef f(x):\n    if x:", characters=600, turns=3, tools=True
    ),
    Caller("acme", "key", "user"),
    lambda _prompt: Classification("math", 0.7, {"math": 1.0}),
    lambda: 0.4,
    Targets({"tiny": 0.9, "big": 0.1}.__getitem__, {"tiny": True, "big": False}.__getitem__),
)
KNOWN = Known(("tiny", "big"), lambda: create_encoder("static"))


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"category": "math"}, True),
        ({"category": ["analysis", "code_generation"]}, False),
        ({"complexity": {"at_least": 0.7}}, True),
        ({"complexity": {"at_least": 0.2, "at_most": 0.6}}, False),
        ({"turns": 3, "tools": True}, True),
        ({"turns": 3, "tools": False}, False),
        ({"tenant": "acme", "role": ["user", "admin"]}, True),
        ({"prompt": {"contains": ["sql", "database"]}}, True),
        ({"prompt": {"contains": "quer"}}, False),
        ({"prompt": {"matches": r"(?i)fix.*query"}}, True),
        ({"load": {"at_most": 0.3}}, False),
        ({"code": True, "code_language": "python"}, True),
        ({"not": {"images": True}}, True),
        ({"any": [{"images": True}, {"characters": {"at_least": 500}}]}, True),
        ({"all": [{"tools": True}, {"not": {"turns": 3}}]}, False),
        ({"like": {"texts": ["a recipe for soup", "repair my SQL query"], "threshold": 0.4}}, True),
        ({"like": {"texts": ["a recipe for soup"]}}, False),
        ({"model_load": {"tiny": {"at_least": 0.8}}}, True),
        ({"model_load": {"tiny": {"at_least": 0.8}, "big": {"at_least": 0.8}}}, False),
        ({"model_up": "tiny"}, True),
        ({"not": {"model_up": ["tiny", "big"]}}, True),
    ],
)
def test_conditions(rule: Any, holds: bool) -> None:
    assert compile_rule(rule, "when", KNOWN)(FACTS) is holds


@pytest.mark.parametrize(
    ("word", "prompt", "holds"),
    [
        ("退款", "我要退款,谢谢", True),
        ("退款", "我要退款", True),
        ("返金", "返金してください", True),
        ("コード", "このコードを直して", True),
        ("คืนเงิน", "ฉันต้องการคืนเงินตอนนี้", True),
        ("sql", "用SQL查询", True),
        ("sql", "用MySQL查询", False),
        ("SQL查询", "mySQL查询语句", False),
        ("退款", "退货", False),
        ("quer", "the query", False),
        ("c++", "is C++ hard", True),
    ],
)
def test_contains_finds_whole_words_of_scripts_with_and_without_spaces(
    word: str, prompt: str, holds: bool
) -> None:
    facts = Facts(Asked(prompt), Caller(), FACTS.classify, lambda: 0.0)
    assert compile_rule({"prompt": {"contains": [word]}}, "when", KNOWN)(facts) is holds


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "when: expected all, any, not"),
        ([], "when: expected all, any, not"),
        ({"colour": "red"}, "when.colour: no signal is named 'colour'"),
        ({"tools": "yes"}, "when.tools: expected true or false"),
        ({"turns": {"above": 3}}, "when.turns: expected a number"),
        ({"turns": True}, "when.turns: expected a number"),
        ({"all": []}, "when.all: expected a list"),
        ({"all": [{"not": {"tool": True}}]}, "when.all.0.not.tool: no signal is named 'tool'"),
        ({"prompt": {"matches": "("}}, "when.prompt.matches: not a regular expression"),
        ({"prompt": {"contains": []}}, "when.prompt: expected matches"),
        ({"tenant": 5}, "when.tenant: expected a word"),
        ({"like": "refunds"}, "when.like: expected texts: [TEXTS]"),
        ({"like": {"texts": ["a refund"], "threshold": 2}}, "when.like.threshold: Input should be less"),
        ({"model_load": {"huge": {"at_least": 1}}}, "when.model_load: there is no model 'huge'"),
        ({"model_load": {"big": "busy"}}, "when.model_load.big: expected a number"),
        ({"model_up": ["big", "huge"]}, "when.model_up: there is no model 'huge'; there are tiny, big"),
    ],
)
def test_wrong_conditions_say_where_and_what_is_allowed(rule: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compile_rule(rule, "when", KNOWN)
    assert str(caught.value).startswith(message)


KEYS = ["all", "any", "not", "matches", "contains", "at_least", "like", "texts", "threshold", "model_load",
        "model_up", "tiny"]  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEYS, *SIGNALS]),
            inner,
            max_size=2,
        )
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING)
def test_any_rule_is_either_refused_or_answers(rule: Any) -> None:
    try:
        condition = compile_rule(rule, "when", KNOWN)
    except SettingsError as error:
        assert str(error).startswith("when")
        return
    assert condition(FACTS) in (True, False)
