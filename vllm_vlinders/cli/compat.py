"""``vlinders compat``: which vLLM releases the patches fit, by reading them and by running them."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.cli.patches import DEFAULT_SELECTION
from vllm_vlinders.compat.adopt import adopt
from vllm_vlinders.compat.prove import LONG, SHORT, Prover
from vllm_vlinders.compat.report import badge, markdown, page
from vllm_vlinders.compat.results import (
    OUR_RESULTS,
    Results,
    as_json,
    read_results,
    write_results,
    write_whole,
)
from vllm_vlinders.compat.runs import OURS, Run, today
from vllm_vlinders.compat.scan import ReleaseFinding, Scanner
from vllm_vlinders.compat.sources import PROJECT, Release, Sources, release_of_folder, release_of_wheel
from vllm_vlinders.compat.surface import SurfaceFinding
from vllm_vlinders.compat.workshop import Workshop
from vllm_vlinders.errors import CompatError, StartupError
from vllm_vlinders.patching.discover import PatchClass, discover
from vllm_vlinders.patching.gate import Fit

_COLUMNS = ("patch", "fit", "surface", "change", "detail")


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("compat", help="which vLLM releases the patches fit")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_scan(actions.add_parser("scan", help="read releases from the package index; nothing is installed"))
    _add_test(actions.add_parser("test", help="run vLLM's own tests and ours on releases"))
    _add_watch(actions.add_parser("watch", help="scan the releases newer than the newest that was run"))
    _add_adopt(actions.add_parser("adopt", help="record what is unchanged in a release, show the rest"))
    _add_report(actions.add_parser("report", help="write the table of results for people"))


def _add_scan(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--vllm", nargs="+", type=_version, metavar="X.Y.Z", help="these releases")
    which.add_argument("--recorded", action="store_true", help="every release the patches were recorded for")
    which.add_argument("--latest", type=_count, metavar="N", help="the newest N releases (default: 1)")
    which.add_argument("--path", type=Path, metavar="SRC", help="a folder that holds the package vllm")
    which.add_argument("--wheel", type=Path, metavar="FILE", help="a wheel of vLLM")
    parser.add_argument("--as", dest="version", type=_version, metavar="X.Y.Z", help="what SRC or FILE is")
    _add_patches(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--brief", action="store_true", help="print no diffs")
    parser.add_argument("--results", type=Path, metavar="FILE", help="also put the verdicts into this table")
    parser.set_defaults(run=run_scan)


def _add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vllm", nargs="+", type=_version, metavar="X.Y.Z", required=True)
    _add_patches(parser)
    parser.add_argument("--long", action="store_true", help="vLLM's own tests that take minutes too")
    parser.add_argument(
        "--only",
        choices=("own", "ours", "failed"),
        help="vLLM's own tests alone, ours alone, or those of ours that did not pass by the table of --results",
    )
    parser.add_argument("--project", type=Path, default=Path(), help="the checkout to run in (default: here)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="put what came of it into this table")
    parser.set_defaults(run=run_test)


def _add_watch(parser: argparse.ArgumentParser) -> None:
    _add_patches(parser)
    parser.add_argument("--results", type=Path, default=OUR_RESULTS, help="the table (default: ours)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--brief", action="store_true", help="print no diffs")
    parser.set_defaults(run=run_watch)


def _add_adopt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", type=_version, metavar="X.Y.Z")
    parser.add_argument(
        "--accept", nargs="+", default=[], metavar="SURFACE", help="changed ones that you have read"
    )
    _add_patches(parser)
    parser.set_defaults(run=run_adopt)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        nargs="+",
        type=Path,
        default=[OUR_RESULTS],
        metavar="FILE",
        help="tables to make one of; where two differ the later wins (default: ours)",
    )
    for form in _FORMS:
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write it as {form}")
    parser.set_defaults(run=run_report)


def _add_patches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--patches",
        default=DEFAULT_SELECTION,
        metavar="SELECTION",
        help=f"as VLLM_CUSTOM_PATCHES would name them (default: {DEFAULT_SELECTION})",
    )


def run_scan(arguments: argparse.Namespace) -> int:
    """Scan the chosen releases; 1 if a required patch cannot take one."""
    sources, patches = Sources(), _patches(arguments)
    scanner = Scanner(patches, sources)
    with ExitStack() as stack:
        findings = [scanner.scan(release) for release in _chosen(arguments, patches, sources, stack)]
    if arguments.results:
        results = read_results(arguments.results)
        for finding in findings:
            results.add_scan(finding, today())
        write_results(arguments.results, results)
    _print_findings(findings, arguments)
    return 1 if any(finding.fit is not Fit.FITS for finding in findings) else 0


def run_test(arguments: argparse.Namespace) -> int:
    """Run the tests on each release; 1 if one that should pass does not."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends what it has started
    workshop = Workshop(arguments.project.resolve(), Sources())
    prover = Prover(workshop, arguments.patches, lambda line: print(line, flush=True))
    results = read_results(arguments.results) if arguments.results else None
    green = True
    own = () if arguments.only == "ours" else (*SHORT, *LONG) if arguments.long else SHORT
    # Our tests are of our patches.
    ours = () if arguments.only == "own" or arguments.patches != DEFAULT_SELECTION else tuple(OURS)
    for version in arguments.vllm:
        if arguments.only == "failed":
            run = prover.prove_again(_earlier_run(results, version))
        else:
            run = prover.prove(version, own, ours)
        green = green and run.green
        if results is not None:
            results.add_run(run)
            write_results(arguments.results, results)
    return 0 if green else 1


def _earlier_run(results: Results | None, version: Version) -> Run:
    row = results.rows.get(version.public) if results is not None else None
    if row is None or row.run is None:
        raise CompatError(
            f"--only failed: no run of vLLM {version} is on record; name the table by --results"
        )
    return row.run


def run_watch(arguments: argparse.Namespace) -> int:
    """Scan what is newer than the newest release that was run, and green; 1 if there is any."""
    newest = read_results(arguments.results).newest_run()
    if newest is None:
        raise CompatError(
            f"{arguments.results}: no release was run yet with all tests green; run one: vlinders compat test"
        )
    sources = Sources()
    newer = [version for version in sources.index.releases(PROJECT) if version > newest]
    if not newer:
        print(f"nothing newer than vLLM {newest}, the newest release that was run")
        return 0
    scanner = Scanner(_patches(arguments), sources)
    _print_findings([scanner.scan(sources.get(version)) for version in newer], arguments)
    return 1


def run_adopt(arguments: argparse.Namespace) -> int:
    """Record what is unchanged; 1 if something is left to read."""
    sources, patches = Sources(), _patches(arguments)
    release = sources.get(arguments.release)
    done = adopt(patches, Scanner(patches, sources), release, arguments.accept)
    for finding in done.left:
        _print_diff(finding)
    for path, count in done.recorded.items():
        print(f"{path}: {count} fingerprints of vLLM {release.version}")
    if done.left:
        print(f"{len(done.left)} are left; when you have read one and the patch is right, --accept it:")
        print(*(f"  {finding.surface}: {finding.change}" for finding in done.left), sep="\n")
    return 1 if done.left else 0


def run_report(arguments: argparse.Namespace) -> int:
    """Write the table in the forms that were asked for; the Markdown to the terminal if none was."""
    results = Results()
    for path in arguments.results:
        results.add(read_results(path))
    asked = {form: getattr(arguments, form) for form in _FORMS if getattr(arguments, form)}
    for form, path in asked.items():
        write_whole(path, _FORMS[form](results))
    if not asked:
        print(markdown(results), end="")
    return 0


_FORMS = {"markdown": markdown, "html": page, "badge": badge, "json": as_json}


def _patches(arguments: argparse.Namespace) -> list[PatchClass]:
    try:
        return discover(arguments.patches)
    except StartupError as error:  # which speaks of the variable that names patches elsewhere
        raise CompatError(str(error).replace("VLLM_CUSTOM_PATCHES", "--patches")) from None


def _chosen(
    arguments: argparse.Namespace, patches: Sequence[PatchClass], sources: Sources, stack: ExitStack
) -> Iterator[Release]:
    if arguments.version and not (arguments.path or arguments.wheel):
        raise CompatError("--as says what --path or --wheel is; releases of the index say it themselves")
    if arguments.path:
        yield release_of_folder(arguments.path, arguments.version)
    elif arguments.wheel:
        yield stack.enter_context(release_of_wheel(arguments.wheel, arguments.version))
    elif arguments.recorded:
        yield from map(sources.get, sorted({Version(v) for patch in patches for v in patch.fingerprints}))
    else:
        yield from map(sources.get, arguments.vllm or sources.latest(arguments.latest or 1))


def _print_findings(findings: Sequence[ReleaseFinding], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json([{"fit": finding.fit, **asdict(finding)} for finding in findings])
        return
    for finding in findings:
        needed = [patch for patch in finding.patches if patch.fit is not Fit.NOT_NEEDED]
        held = sum(patch.holds for patch in needed)
        print(
            f"vLLM {finding.release}: {finding.fit}; {held} of {len(needed)} patches fit ({finding.origin})"
        )
        rows = list(_rows(finding))
        if rows:
            print_table(rows, _COLUMNS)
        for surface in finding.changed if not arguments.brief else ():
            _print_diff(surface)
        sys.stdout.flush()


def _rows(finding: ReleaseFinding) -> Iterator[dict[str, str]]:
    for patch in finding.patches:
        about = {"patch": patch.patch, "fit": str(patch.fit)}
        changed = [s for s in patch.surfaces if s.change != "unchanged"]
        for surface in changed:
            detail = "; ".join(filter(None, [surface.detail, _compared(surface)]))
            yield {**about, "surface": surface.surface, "change": str(surface.change), "detail": detail}
        if not changed and not patch.holds:
            yield {**about, "surface": "", "change": "", "detail": patch.detail}


def _compared(surface: SurfaceFinding) -> str:
    return f"compared with {surface.compared_with}" if surface.compared_with else ""


def _print_diff(surface: SurfaceFinding) -> None:
    if surface.diff:
        print(f"\n{surface.diff}\n")


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise argparse.ArgumentTypeError(f"{text!r} is not a version; write it like 0.32.0") from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of releases, 1 or more")
    return int(text)
