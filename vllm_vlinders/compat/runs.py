"""What was run on a release, and what came of it: plain data, as it stands in the table of results."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace

from vllm_vlinders.compat.pytest_runs import Outcomes

OURS = {
    "patches": ("tests/patches",),
    # The tests of that one file start another release by themselves.
    "integration": ("tests/integration", "--ignore=tests/integration/test_release.py"),
}
"""The tests of this project that run on each release: a name for each set, and what pytest is given."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One set of tests, run on a release with the patches.

    Attributes:
        name: a file of vLLM's own tests, or ``patches`` or ``integration`` for ours.
        total: the tests that should pass: for vLLM's own, those that pass without the patches.
        passed: how many of them do pass with the patches.
        date: when it was run, ISO 8601.
        broken: the names of those that do not.
        unusable: tests of vLLM's own that fail here without the patches too, and say nothing.
    """

    name: str
    total: int
    passed: int
    date: str
    broken: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """All that was run on one release.

    Attributes:
        release: which.
        build: what ran, in words: the CPU build, or a hybrid and of what.
        hybrid: whether the sources are the release's but the compiled parts another one's.
        python: on which Python.
        vlinders: with which version of this package.
        patches: with which patches, as far as the release needs them.
        suites: the tests.
    """

    release: str
    build: str
    hybrid: bool
    python: str
    vlinders: str
    patches: list[str]
    suites: list[Suite]

    @property
    def date(self) -> str:
        """When the latest of the tests was run."""
        return max((suite.date for suite in self.suites), default="")

    @property
    def whole(self) -> bool:
        """Whether both were run: vLLM's own tests, and every set of ours."""
        names = {suite.name for suite in self.suites}
        return names > set(OURS)

    @property
    def green(self) -> bool:
        """Whether everything that should pass does, and something was run."""
        return any(suite.total for suite in self.suites) and not any(suite.broken for suite in self.suites)

    def after(self, earlier: Run | None) -> Run:
        """Return this run with the tests of an earlier one that it did not run, if all else is equal."""
        if earlier is None or replace(earlier, suites=[]) != replace(self, suites=[]):
            return self
        names = {suite.name for suite in self.suites}
        kept = [suite for suite in earlier.suites if suite.name not in names]
        return replace(self, suites=[*kept, *self.suites])


def compare(name: str, stock: Outcomes, patched: Outcomes) -> Suite:
    """Hold the patched run of a test file against the unpatched one, test by test."""
    broken = sorted(stock.passed - patched.passed)
    total = len(stock.passed)
    return Suite(name, total, total - len(broken), today(), broken, sorted(stock.failed))


def all_must_pass(name: str, outcomes: Outcomes) -> Suite:
    """Return the suite of tests of ours: each of them must pass."""
    total = len(outcomes.passed) + len(outcomes.failed)
    return Suite(name, total, len(outcomes.passed), today(), sorted(outcomes.failed))


def run_again(suite: Suite, outcomes: Outcomes) -> Suite:
    """Return `suite` after its broken tests were run anew; one that is skipped now counts no longer."""
    total = suite.total - len(set(suite.broken) - outcomes.passed - outcomes.failed)
    broken = sorted(outcomes.failed)
    return replace(suite, total=total, passed=total - len(broken), broken=broken, date=today())


def today() -> str:
    """Return the date, ISO 8601, the same everywhere."""
    return dt.datetime.now(dt.UTC).date().isoformat()
