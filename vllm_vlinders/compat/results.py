"""The one table of what is known of each vLLM release: ``results.json``, written by commands.

Release to what its static scan found and what was run on it. The documents, the claims of the
patches and the badges come from it or are checked against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from packaging.version import Version

from vllm_vlinders.compat.runs import Run, Suite
from vllm_vlinders.compat.scan import ReleaseFinding
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.gate import Fit

OUR_RESULTS = Path(__file__).with_name("results.json")


class Level(StrEnum):
    """How much is known of a release, in words that claim no more."""

    PROVEN = "proven by running it"
    HYBRID = "statically checked, and run as a hybrid"
    PART = "statically checked, and run in part"
    STATIC = "statically checked"
    DRIFTED = "does not fit"
    FAILED = "tests fail"


_GREEN = (Level.PROVEN, Level.HYBRID, Level.PART)
"""The levels of a release that fits, of which something was run and all that was run passed."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the static scan of a release found.

    Attributes:
        date: when, ISO 8601.
        origin: how the sources were obtained.
        fit: the worst verdict on a required patch.
        patches: the verdict on each.
    """

    date: str
    origin: str
    fit: str
    patches: dict[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """Everything known of one release."""

    scan: Scanned | None = None
    run: Run | None = None

    @property
    def level(self) -> Level | None:
        """How much that is worth; None where nothing is known."""
        if self.scan is not None and self.scan.fit != Fit.FITS:
            return Level.DRIFTED
        if self.run is None:
            return Level.STATIC if self.scan else None
        if not self.run.green:
            return Level.FAILED
        if not (self.run.whole and self._needed <= set(self.run.patches)):
            return Level.PART
        return Level.HYBRID if self.run.hybrid else Level.PROVEN

    @property
    def _needed(self) -> set[str]:
        """The patches that the release needs: a run before one of them was written proves little of it."""
        known = self.scan.patches if self.scan else {}
        return {patch for patch, fit in known.items() if fit == Fit.FITS}


@dataclass(slots=True)
class Results:
    """The table."""

    rows: dict[str, Row] = field(default_factory=dict)

    def releases(self) -> list[str]:
        """Return the releases, oldest first."""
        return sorted(self.rows, key=Version)

    def newest_run(self) -> Version | None:
        """Return the newest release that was run, in part at least, and green."""
        run = [Version(name) for name, row in self.rows.items() if row.level in _GREEN]
        return max(run, default=None)

    def add_scan(self, finding: ReleaseFinding, date: str) -> None:
        """Put the result of a scan in its row."""
        patches = {patch.patch: patch.fit.value for patch in finding.patches}
        scanned = Scanned(date, finding.origin, finding.fit.value, patches)
        old = self.rows.get(finding.release, Row())
        self.rows[finding.release] = Row(scanned, old.run)

    def add_run(self, run: Run) -> None:
        """Put the result of a run in its row; what it did not run anew is kept, see `Run.after`."""
        old = self.rows.get(run.release, Row())
        self.rows[run.release] = Row(old.scan, run.after(old.run))

    def add(self, other: Results) -> None:
        """Put all that another table knows in this one; where both know something, the other wins."""
        for release, row in other.rows.items():
            old = self.rows.get(release, Row())
            self.rows[release] = Row(row.scan or old.scan, old.run)
            if row.run is not None:
                self.add_run(row.run)


def read_results(path: Path) -> Results:
    """Return the table that stands at `path`; an empty one if nothing does.

    Raises:
        CompatError: it is not such a table.
    """
    try:
        known: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Results({release: _row(row) for release, row in known["releases"].items()})
    except FileNotFoundError:
        return Results()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompatError(f"{path}: not a table of results: {error!r}") from None


def write_results(path: Path, results: Results) -> None:
    """Write the table, oldest release first, in one step.

    Raises:
        CompatError: it cannot be written.
    """
    write_whole(path, as_json(results))


def as_json(results: Results) -> str:
    """Return the table as it is written."""
    known = {"releases": {release: asdict(results.rows[release]) for release in results.releases()}}
    return json.dumps(known, indent=2) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: half of it is never to be seen.

    Raises:
        CompatError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CompatError(f"{path} cannot be written: {error}") from None


def _row(row: Mapping[str, Any]) -> Row:
    scan, run = row["scan"], row["run"]
    return Row(
        Scanned(**scan) if scan else None,
        Run(**{**run, "suites": [Suite(**suite) for suite in run["suites"]]}) if run else None,
    )
