"""What is read of request bodies: of good ones the prompt, of odd ones as much as can be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_vlinders.routing.asked import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    MOST_CHARACTERS,
    PATHS,
    RESPONSES,
    Asked,
    read_asked,
)
from vllm_vlinders.routing.shape import shape
from vllm_vlinders.settings import RouteSettings


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        (CHAT, {"messages": [user("hi")]}),
        (CHAT, {"messages": [user("before"), {"role": "assistant", "content": "yes"}, user("hi")]}),
        (CHAT, {"messages": [user([{"type": "text", "text": "hi"}])]}),
        (COMPLETIONS, {"prompt": "hi"}),
        (COMPLETIONS, {"prompt": ["hi", "there"]}),
        (RESPONSES, {"input": "hi"}),
        (RESPONSES, {"input": [user([{"type": "input_text", "text": "hi"}])]}),
        (MESSAGES, {"system": "be brief", "messages": [user([{"type": "text", "text": "hi"}])]}),
    ],
)
def test_the_last_text_of_the_user_is_the_prompt(path: str, payload: Any) -> None:
    assert read_asked(path, payload).prompt == "hi"


def test_the_shape_of_a_conversation() -> None:
    messages = [
        {"role": "system", "content": "12345"},
        user("abc"),
        {"role": "assistant", "content": "de"},
        user(
            [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
        ),
    ]
    form = {"type": "json_schema", "json_schema": {}}
    asked = read_asked(CHAT, {"messages": messages, "tools": [{}], "response_format": form, "stream": True})
    assert (asked.prompt, asked.context, asked.messages, asked.turns) == ("what is this?", 10, 4, 2)
    assert (asked.tools, asked.images, asked.json_schema, asked.system, asked.stream) == (True,) * 5


def test_an_agents_turn_is_read_alike_on_chat_and_on_messages() -> None:
    ask, more = user("fix the bug"), "look at the tests, too"
    results = ["def f(): ...", "1 failed"]
    chat = [
        ask,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}, {"id": "b"}]},
        *({"role": "tool", "tool_call_id": "a", "content": text} for text in results),
    ]
    parts: list[Any] = [
        {"type": "tool_result", "tool_use_id": "a", "content": results[0]},
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": results[1]}]},
    ]
    calls = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
    for said, prompt, turns in ([], "fix the bug", 1), ([{"type": "text", "text": more}], more, 2):
        one = read_asked(CHAT, {"messages": [*chat, *map(user, [more] * len(said))]})
        other = read_asked(MESSAGES, {"messages": [ask, calls, user([*parts, *said])]})
        assert one == other
        assert (other.prompt, other.turns) == (prompt, turns)


def test_a_long_prompt_keeps_its_beginning_and_its_end() -> None:
    asked = read_asked(COMPLETIONS, {"prompt": "a" * 10**6 + "z"})
    assert asked.characters == 10**6 + 1
    assert len(asked.prompt) <= MOST_CHARACTERS + 1
    assert asked.prompt[0] == "a"
    assert asked.prompt[-1] == "z"


def test_many_messages_and_deep_ones_are_read_in_bounds() -> None:
    deep: Any = "deep"
    for _ in range(50_000):
        deep = [deep]
    assert read_asked(CHAT, {"messages": [user(deep)]}).turns == 0
    assert read_asked(CHAT, {"messages": [user("x")] * 10_000}).turns == 10_000
    parts = [{"type": "text", "text": "x"}] * 5
    many = [*[user(parts)] * 10_000, user("the last")]
    assert read_asked(CHAT, {"messages": many}).prompt == "the last"


FIELDS = ["messages", "input", "prompt", "system", "text", "response_format", "chat_template_kwargs", "tools"]
PARTS = ["role", "content", "type", "text", "format"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(PARTS + FIELDS), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_body_is_too_odd_to_read_or_to_shape(path: str, payload: Any) -> None:
    asked = read_asked(path, payload)
    assert isinstance(asked.prompt, str)
    route = RouteSettings(
        name="r", when={"turns": 1}, system="s", parameters={"temperature": 0}, chat_template_kwargs={"a": 1}
    )
    shape(payload, path, asked, route)
    assert payload["temperature"] == 0


def test_a_route_adds_what_the_request_leaves_open() -> None:
    route = RouteSettings(
        name="r",
        when={"turns": 1},
        system="be brief",
        parameters={"temperature": 0.1, "max_tokens": 9},
        chat_template_kwargs={"enable_thinking": False, "a": 1},
    )
    payload = {
        "messages": [user("x")],
        "temperature": 1,
        "max_completion_tokens": 5,
        "chat_template_kwargs": {"a": 2},
    }
    shape(payload, CHAT, read_asked(CHAT, payload), route)
    assert payload == {
        "messages": [{"role": "system", "content": "be brief"}, user("x")],
        "temperature": 1,
        "max_completion_tokens": 5,
        "chat_template_kwargs": {"enable_thinking": False, "a": 2},
    }


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        (RESPONSES, {"max_tokens": 300}, {"max_output_tokens": 300}),
        (RESPONSES, {"max_tokens": 300, "max_output_tokens": 500}, {"max_output_tokens": 500}),
        (CHAT, {"max_output_tokens": 300}, {"max_tokens": 300}),
        (CHAT, {"max_completion_tokens": 300}, {"max_completion_tokens": 300}),
        (COMPLETIONS, {"max_completion_tokens": 300}, {"max_tokens": 300}),
    ],
)
def test_the_length_of_an_answer_has_the_name_that_the_endpoint_knows(
    path: str, given: dict[str, int], expected: dict[str, int]
) -> None:
    payload: dict[str, Any] = {}
    shape(payload, path, Asked(), RouteSettings(name="r", when={"turns": 1}, parameters=given))
    assert payload == expected
