"""``vlinders patches``: how the selected patches fit the installed vLLM; and their fingerprints."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.compat.sources import Sources
from vllm_vlinders.patching.discover import PatchClass, discover
from vllm_vlinders.patching.fingerprint import SourceTree
from vllm_vlinders.patching.gate import Fit, judge, running_vllm_version
from vllm_vlinders.patching.table import TABLE_FILE, record, table_path, write_table

DEFAULT_SELECTION = "vllm_vlinders"
_COLUMNS = ("patch", "feature", "fit", "versions", "required", "detail")


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("patches", help="how the patches fit the installed vLLM")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--select",
        metavar="SELECTION",
        help="what to judge, as VLLM_CUSTOM_PATCHES would name it (default: that, or vllm_vlinders)",
    )
    parser.set_defaults(run=show)
    actions = parser.add_subparsers(metavar="ACTION")
    recorder = actions.add_parser("record", help="write the fingerprints of unpacked vLLM releases")
    recorder.add_argument(
        "sources",
        nargs="+",
        type=_release,
        metavar="VERSION[=FOLDER]",
        help="a release, and the folder that holds its vllm package (default: from the package index)",
    )
    recorder.add_argument("--module", default=DEFAULT_SELECTION, help="whose patches to record")
    recorder.add_argument("--output", type=Path, help=f"the table (default: {TABLE_FILE} beside the patches)")
    recorder.set_defaults(run=run_record)


def show(arguments: argparse.Namespace) -> int:
    """Print the verdict on every selected patch; 1 if any does not fit."""
    selection = arguments.select or os.environ.get("VLLM_CUSTOM_PATCHES") or DEFAULT_SELECTION
    rows = judge_selection(selection)
    if arguments.json:
        print_json(rows)
    else:
        print_table([{key: str(row[key]) for key in _COLUMNS} for row in rows], _COLUMNS)
    return 1 if any(is_problem(row) for row in rows) else 0


def judge_selection(selection: str) -> list[dict[str, Any]]:
    """Return one row per patch of `selection`, judged against the installed vLLM.

    Raises:
        StartupError: the selection is wrong or vLLM is not installed.
    """
    version, source = running_vllm_version(), SourceTree()
    return [_row(patch, version, source) for patch in discover(selection)]


def is_problem(row: dict[str, Any]) -> bool:
    """Tell whether a row of `judge_selection` needs someone's attention."""
    return row["fit"] not in (Fit.FITS, Fit.NOT_NEEDED)


def _row(patch: PatchClass, version: Version, source: SourceTree) -> dict[str, Any]:
    verdict = judge(patch, version, source)
    return {
        "patch": patch.name,
        "module": patch.module(),
        "feature": patch.feature,
        "fit": verdict.fit.value,
        "vllm": str(version),
        "versions": patch.versions,
        "required": patch.required,
        "process": patch.process,
        "target": patch.target_for(version),
        "why": patch.why,
        "upstream": patch.upstream,
        "remove_when": patch.remove_when,
        "detail": verdict.detail,
    }


def run_record(arguments: argparse.Namespace) -> int:
    """Write the table of fingerprints; 1 if a release lacks a surface."""
    sources, patches = Sources(), discover(arguments.module)
    releases = {
        version: folder or sources.get(Version(version)).root for version, folder in arguments.sources
    }
    table, missing = record(patches, releases)
    path = arguments.output or table_path(patches[0])
    write_table(path, table)
    for sentence in missing:
        print(sentence)
    print(f"{path}: {sum(map(len, table.values()))} fingerprints of {len(table)} releases")
    return 1 if missing else 0


def _release(source: str) -> tuple[str, Path | None]:
    version, equals, folder = source.partition("=")
    try:
        Version(version)
    except InvalidVersion:
        message = f"{source!r}: write VERSION or VERSION=FOLDER, as in 0.32.0=/path/to/site-packages"
        raise argparse.ArgumentTypeError(message) from None
    if not equals:
        return version, None
    if not (Path(folder) / "vllm").is_dir():
        message = f"{source!r}: there is no folder 'vllm' in {folder!r}"
        raise argparse.ArgumentTypeError(message)
    return version, Path(folder)
