"""Label values are bounded, and mean the same in all processes of a server."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.metrics.labels import OTHER, LabelValues

NAMES = st.text(min_size=1, max_size=8)


@given(
    st.lists(st.tuples(st.integers(0, 3), NAMES), max_size=60), st.integers(1, 8), st.lists(NAMES, max_size=4)
)
def test_processes_agree_and_keep_the_bound(
    asked: list[tuple[int, str]], most: int, reserved: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        processes = [LabelValues(most, reserved, Path(folder) / "tenants") for _ in range(4)]
        given_out: dict[str, str] = {}
        for process, name in asked:
            label = processes[process].of(name)
            assert label in (name, OTHER)
            assert given_out.setdefault(name, label) == label, "a tenant never changes its label"
        for name in list(dict.fromkeys(reserved))[:most]:
            assert {process.of(name) for process in processes} == {name}
    assert len(set(given_out.values()) - {OTHER} | set(reserved[:most])) <= most + (OTHER in given_out)


def claim(path: Path, most: int, number: int, answers: multiprocessing.Queue[set[str]]) -> None:
    labels = LabelValues(most, path=path)
    answers.put({labels.of(f"tenant {(number * 37 + step) % 200}") for step in range(200)})


def test_processes_that_claim_at_once_keep_the_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[set[str]] = context.Queue()
    children = [
        context.Process(target=claim, args=(tmp_path / "tenants", 20, number, answers)) for number in range(4)
    ]
    for child in children:
        child.start()
    found = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join()

    assert len(set.union(*found) - {OTHER}) == 20
    assert all(each == found[0] for each in found)


def test_without_a_place_for_the_list_each_process_keeps_its_own(tmp_path: Path) -> None:
    labels = LabelValues(2, path=tmp_path / "no" / "such" / "folder")

    assert [labels.of(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
