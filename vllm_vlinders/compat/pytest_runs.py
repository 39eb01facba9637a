"""Running pytest in a process of its own and reading what passed."""

from __future__ import annotations

import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vllm_vlinders.errors import CompatError

_INTERRUPTED_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each test; a skipped one is in neither set."""

    passed: frozenset[str]
    failed: frozenset[str]

    def of(self, file: str) -> Outcomes:
        """Return those of one test file, named from the folder that pytest ran in."""
        module = file.removesuffix(".py").replace("/", ".")
        return Outcomes(*(_of_module(names, module) for names in (self.passed, self.failed)))


@dataclass(slots=True)
class PytestRun:
    """A pytest run under way; as a context manager it ends with the block.

    Attributes:
        title: names it in messages.
        process: the running pytest.
        report: the file it will leave.
        log: where its words go.
    """

    title: str
    process: subprocess.Popen[bytes]
    report: Path
    log: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Interrupt it if it still runs: its tests then end the servers that they have started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(_INTERRUPTED_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def outcomes(self) -> Outcomes:
        """Wait for the end and return what passed and what failed.

        Raises:
            CompatError: pytest could not run anything; the message names its log.
        """
        self.process.wait()
        report = ET.parse(self.report) if self.report.is_file() else None  # noqa: S314 -- of our own pytest
        cases = [] if report is None else list(report.iter("testcase"))
        if not cases:
            raise CompatError(f"{self.title}: pytest ran no test; its words are in {self.log}")
        run = [case for case in cases if case.find("skipped") is None]
        failed = {_name(case) for case in run if _problem(case)}
        return Outcomes(frozenset(map(_name, run)) - failed, frozenset(failed))


def start_pytest(
    title: str, files: Sequence[str], *, cwd: Path, variables: Mapping[str, str], report: Path
) -> PytestRun:
    """Start pytest on `files` in the folder `cwd`, with `variables` as its whole environment."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    log = report.with_suffix(".log")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors"]
    with log.open("wb") as words:
        process = subprocess.Popen(
            [*command, f"--junitxml={report}", *files],
            cwd=cwd,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
        )
    return PytestRun(title, process, report, log)


def _of_module(names: frozenset[str], module: str) -> frozenset[str]:
    return frozenset(name for name in names if f"{name}.".startswith((f"{module}::", f"{module}.")))


def _name(case: ET.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}"


def _problem(case: ET.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None
