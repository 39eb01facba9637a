"""The table of results for people: Markdown, a static HTML page, a badge."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from vllm_vlinders.compat.results import Level, Results, Row
from vllm_vlinders.compat.runs import OURS, Run

_COLUMNS = ("vLLM", "what is known", "patches", "vLLM's own tests, patched", "our tests", "how obtained")
_NOTE = (
    "Made by `vlinders compat report` from `vllm_vlinders/compat/results.json`; not written by hand. "
    "“Statically checked” means that every function a patch replaces or relies on was read from the "
    "release's sources and is the one the patch was written for; nothing was run. A hybrid is a release's "
    "Python sources with another release's compiled parts: it is no build that anyone ships. Of vLLM's own "
    "tests those count that pass without the patches in the same environment. Of our tests, those that did not "
    "pass at first may have been run again by themselves after a mend (`vlinders compat test --only failed`)."
)


def markdown(results: Results) -> str:
    """Return the matrix as a Markdown document."""
    lines = ["# Compatibility matrix", "", _NOTE, "", *_table(_COLUMNS, map(_cells, *_rows(results)))]
    patches = _patch_names(results)
    lines += ["", "## Patches", "", *_table(("patch", *results.releases()), _patch_rows(results, patches))]
    runs = {release: row.run for release, row in zip(*_rows(results), strict=True) if row.run}
    lines += ["", "## Tests", ""] if runs else []
    for release, run in runs.items():
        lines += _suites(release, run)
    return "\n".join(lines).rstrip() + "\n"


def page(results: Results) -> str:
    """Return the matrix as an HTML page that needs nothing else."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in _COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(release, row)) + "</tr>\n"
        for release, row in zip(*_rows(results), strict=True)
    )
    names = results.releases()
    matrix_head = "".join(f"<th>{html.escape(name)}</th>" for name in ("patch", *names))
    matrix = "".join(
        "<tr>"
        + "".join(f'<td class="{html.escape(cell)}">{html.escape(cell)}</td>' for cell in cells)
        + "</tr>\n"
        for cells in _patch_rows(results, _patch_names(results))
    )
    return _PAGE.format(
        note=html.escape(_NOTE.replace("`", "")), head=head, body=body, matrix_head=matrix_head, matrix=matrix
    )


def badge(results: Results) -> str:
    """Return the JSON that shields.io makes a badge of: the releases proven by running them."""
    proven = [name for name in results.releases() if results.rows[name].level is Level.PROVEN]
    bad = any(row.level in (Level.FAILED, Level.DRIFTED) for row in results.rows.values())
    message = "none proven" if not proven else " to ".join(dict.fromkeys((proven[0], proven[-1])))
    known = {
        "schemaVersion": 1,
        "label": "vLLM",
        "message": message,
        "color": "red" if bad else "green" if proven else "lightgrey",
    }
    return json.dumps(known) + "\n"


def _rows(results: Results) -> tuple[list[str], list[Row]]:
    releases = results.releases()
    return releases, [results.rows[release] for release in releases]


def _cells(release: str, row: Row) -> tuple[str, ...]:
    scan, run = row.scan, row.run
    fits = [fit for fit in scan.patches.values() if fit != "not_needed"] if scan else []
    patches = f"{fits.count('fits')} of {len(fits)} fit" if scan else "not scanned"
    own = _sum(run, lambda name: name not in OURS) if run else "not run"
    ours = _sum(run, lambda name: name in OURS) if run else "not run"
    how = [f"{scan.origin} ({scan.date})"] if scan else []
    how += [f"ran {run.build}, Python {run.python} ({run.date})"] if run else []
    return release, row.level or "nothing", patches, own, ours, "; ".join(how)


def _sum(run: Run, wanted: Any) -> str:
    chosen = [suite for suite in run.suites if wanted(suite.name)]
    if not chosen:
        return "not run"
    return f"{sum(s.passed for s in chosen)} of {sum(s.total for s in chosen)}"


def _patch_names(results: Results) -> list[str]:
    names = [name for row in results.rows.values() if row.scan for name in row.scan.patches]
    return list(dict.fromkeys(names))


def _patch_rows(results: Results, patches: Iterable[str]) -> Iterable[tuple[str, ...]]:
    for patch in patches:
        scans = [results.rows[release].scan for release in results.releases()]
        yield patch, *((scan.patches.get(patch, "") if scan else "") for scan in scans)


def _suites(release: str, run: Run) -> list[str]:
    about = f"{run.build}, Python {run.python}, {run.date}, with {len(run.patches)} patches"
    lines = [f"### vLLM {release}", "", f"{about}: {', '.join(run.patches)}", ""]
    cells = ((s.name, f"{s.passed} of {s.total}", str(len(s.unusable) or "")) for s in run.suites)
    lines += _table(("tests", "passed", "fail on stock too, and do not count"), cells)
    broken = [f"- `{test}`" for suite in run.suites for test in suite.broken]
    return [*lines, *(["", "Should pass and do not:", "", *broken] if broken else []), ""]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(columns), _line(["---"] * len(columns)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vllm-vlinders: compatibility with vLLM</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1.5rem 0; display: block; overflow-x: auto }}
th, td {{ border: 1px solid #8886; padding: .35rem .6rem; text-align: left; vertical-align: top }}
td.fits {{ background: #2a64 }}
td.drifted, td.not_for_version {{ background: #c336 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #ddd }} }}
</style>
</head>
<body>
<h1>Compatibility matrix</h1>
<p>{note}</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table>
<h2>Patches</h2>
<table><thead><tr>{matrix_head}</tr></thead><tbody>
{matrix}</tbody></table>
</body>
</html>
"""
