from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.errors import InvalidPriorityError
from vllm_vlinders.scheduling.priority import check_priority, engine_priority, parse_priority


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_larger_is_more_urgent_and_vllm_puts_the_lower_first(one: int, other: int) -> None:
    assert (engine_priority(one) < engine_priority(other)) == (one > other)


@given(st.integers(0, 1000))
def test_what_is_written_is_read(value: int) -> None:
    assert parse_priority(f" {value} ") == value


@given(st.text())
def test_any_header_text_is_a_priority_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_priority(text) <= 1000
    except InvalidPriorityError as error:
        assert error.status == 400
        assert "0 to 1000" in str(error)


@pytest.mark.parametrize("text", ["", "5.5", "-1", "1001", "1e2", "٣", "+5", "0x10", "9" * 5000, "1_0"])
def test_refused_header_values(text: str) -> None:
    with pytest.raises(InvalidPriorityError, match="X-Vlinders-Priority: .*0 to 1000"):
        parse_priority(text)


@pytest.mark.parametrize("value", [-1, 1001, True, 5.0, "5", None])
def test_refused_python_values(value: object) -> None:
    with pytest.raises(ValueError, match=r"priority: .* is not allowed"):
        check_priority(value, "priority")
