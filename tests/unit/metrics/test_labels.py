"""Label values are bounded, and mean the same in all processes of a server."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from vllm_vlinders.metrics.labels import OTHER, LabelValues

ROOT = Path(__file__).parents[3]
NAMES = st.text(min_size=1, max_size=8)
COUNTER = """
import json, sys
from prometheus_client import REGISTRY
from vllm_vlinders.metrics import requests
from vllm_vlinders.settings import load_settings

requests._MOST_MODELS = 3
recorder = requests.open_recorder(load_settings())
for name in sys.argv[1:]:
    recorder.end(requests.Who(name, name, principal=name), 200, requests.Tokens(1), requests.Times(1.0))
(family,) = (family for family in REGISTRY.collect() if family.name == "vlinders_requests")
rows = {tuple(each.labels[name] for name in ("tenant", "model", "who")) for each in family.samples}
print(json.dumps(sorted(rows, key=lambda row: row[1])))
"""


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


def test_processes_agree_on_tenants_models_and_principals(tmp_path: Path) -> None:
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "VLINDERS_RUN_DIR": str(tmp_path),
        "VLINDERS_METRICS__LABELS": "{who: principal}",
        "VLINDERS_METRICS__MAX_TENANTS": "3",
    }

    def labels_after(*names: str) -> list[list[str]]:
        command = [sys.executable, "-c", COUNTER, *names]
        return list(json.loads(subprocess.check_output(command, env=variables, text=True)))

    assert labels_after("a", "b") == [["a"] * 3, ["b"] * 3]
    assert labels_after("c", "b", "d") == [["b"] * 3, [OTHER, "c", "c"], [OTHER] * 3]
    assert labels_after("d", "a", "c") == [["a"] * 3, [OTHER, "c", "c"], [OTHER] * 3]


def test_without_a_place_for_the_list_each_process_keeps_its_own(tmp_path: Path) -> None:
    labels = LabelValues(2, path=tmp_path / "no" / "such" / "folder")

    assert [labels.of(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
