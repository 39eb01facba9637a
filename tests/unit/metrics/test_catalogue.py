"""The catalogue: what stands in the docs, and observations that are added many at a time."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from vllm_vlinders.metrics.catalogue import FAMILIES, GAP_SECONDS, rows
from vllm_vlinders.metrics.families import observe, observe_many

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def test_the_documentation_has_the_table_of_the_code() -> None:
    table = "\n".join(rows())
    assert table in OPERATIONS.read_text(encoding="utf-8"), "run `make metric-table`"


def test_names_are_ours_and_each_is_there_once() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("vlinders_") for name in names)
    assert all(family.name.endswith("_total") for family in FAMILIES if family.kind == "counter")


@given(st.lists(st.floats(0, 100), max_size=30))
def test_many_observations_at_once_are_as_one_by_one(seconds: list[float]) -> None:
    registry = CollectorRegistry()
    one, fast, many = (
        Histogram(name, name, buckets=GAP_SECONDS, registry=registry) for name in ("one", "fast", "many")
    )
    counts = [0] * (len(GAP_SECONDS) + 1)
    for value in seconds:
        one.observe(value)
        observe(fast, GAP_SECONDS, value)
        counts[bisect_left(GAP_SECONDS, value)] += 1
    observe_many(many, counts, sum(seconds))

    exposed = {
        family.name: [sample.value for sample in family.samples if not sample.name.endswith("_created")]
        for family in text_string_to_metric_families(generate_latest(registry).decode())
    }
    assert exposed["fast"] == exposed["one"]
    assert exposed["many"] == pytest.approx(exposed["one"])
