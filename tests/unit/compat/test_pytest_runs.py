"""Real pytest runs on small real test files."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from vllm_vlinders.compat.pytest_runs import PytestRun, start_pytest
from vllm_vlinders.errors import CompatError

WAITS = """
import pathlib, time
import pytest

@pytest.fixture
def server():
    yield
    pathlib.Path("stopped").touch()

def test_waits(server):
    pathlib.Path("started").touch()
    time.sleep(3600)
"""

TESTS = """
import os, random
import pytest

def test_passes(): ...
def test_fails(): assert os.environ["KIND"] == "stock"
@pytest.mark.skip
def test_skipped(): ...
@pytest.fixture
def broken(): raise OSError
def test_errors(broken): ...
@pytest.fixture
def broken_afterwards():
    yield
    raise OSError
def test_errors_afterwards(broken_afterwards): ...
def test_draws(): assert random.random() == 0.8444218515250481
"""


def run(folder: Path, kind: str) -> tuple[set[str], set[str]]:
    outcomes = start_pytest(
        kind,
        ["-p", "vllm_vlinders.compat.pytest_plugin", "test_it.py"],
        cwd=folder,
        variables=os.environ | {"KIND": kind, "PYTHONPATH": str(Path(__file__).parents[3])},
        report=folder / "reports" / f"{kind}.xml",
    ).outcomes()
    return {name.rpartition("::")[2] for name in outcomes.passed}, {
        name.rpartition("::")[2] for name in outcomes.failed
    }


def test_outcomes_are_read_test_by_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)

    passed, failed = run(tmp_path, "stock")
    assert passed == {"test_passes", "test_fails", "test_draws"}
    assert failed == {"test_errors", "test_errors_afterwards"}
    passed, failed = run(tmp_path, "patched")
    assert passed == {"test_passes", "test_draws"}
    assert "test_fails" in failed


@pytest.mark.parametrize("text", ["def test_it(:", "import nothing_of_that_name", ""])
def test_a_run_of_nothing_is_no_success(tmp_path: Path, text: str) -> None:
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "stock.xml").write_text("<testsuite><testcase name='of yesterday'/></testsuite>")

    if text:
        _, failed = run(tmp_path, "stock")
        assert failed
    else:
        with pytest.raises(CompatError, match=r"stock: pytest ran no test; its words are in .*stock.log"):
            run(tmp_path, "stock")


def test_a_run_that_is_left_early_ends_what_it_has_started(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(WAITS)
    started, report = tmp_path / "started", tmp_path / "reports" / "it.xml"

    def leave_early() -> None:
        with start_pytest("it", ["test_it.py"], cwd=tmp_path, variables=os.environ, report=report) as run:
            runs.append(run)
            while not started.exists():
                time.sleep(0.05)
            sys.exit(143)

    runs: list[PytestRun] = []
    with pytest.raises(SystemExit):
        leave_early()

    assert runs[0].process.poll() is not None
    assert (tmp_path / "stopped").exists()
