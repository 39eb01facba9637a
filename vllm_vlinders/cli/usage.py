"""``vlinders usage``: what tenants used, by day and model, from the ledger that the settings name."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.settings import load_settings


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("usage", help="show what tenants used and what it cost")
    parser.add_argument("--month", help="as 2026-11 (default: this month so far)")
    parser.add_argument("--from", dest="first", metavar="DAY", help="the first day, as 2026-11-21 (UTC)")
    parser.add_argument("--to", dest="last", metavar="DAY", help="the last day (default: today)")
    parser.add_argument("--tenant", help="of this tenant alone")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report."""
    from vllm_vlinders.usage.report import as_csv, parse_days, report
    from vllm_vlinders.usage.store import UsageStore

    settings = load_settings().usage
    try:
        days = parse_days(arguments.first, arguments.last, arguments.month, time.time())
    except ValueError as error:
        print(f"vlinders: {error}", file=sys.stderr)
        return 2
    store = UsageStore(settings.url())
    found, lost = store.read(*days, tenant=arguments.tenant), store.lost(*days)
    store.close()
    if arguments.csv:
        print(as_csv(found), end="")
        return 0
    summary = report(found, lost, days, settings if arguments.tenant is None else None)
    if arguments.json:
        print_json(summary)
    else:
        _print(summary)
    return 0


def _print(summary: dict[str, Any]) -> None:
    from vllm_vlinders.usage.report import COLUMNS

    total = {"day": "total", "tenant": "", "model": "", **summary["total"]}
    lines = [{**row, "cost": f"{row['cost']:.4f}"} for row in (*summary["rows"], total)]
    print_table([{name: str(line[name]) for name in COLUMNS} for line in lines], COLUMNS)
    gpus, lost = summary.get("gpus"), summary["lost"]
    if gpus is not None:
        each = gpus["cost_per_1k_tokens"]
        print(f"GPUs: {gpus['hours']:.1f} hours, {gpus['cost']:.2f}", end="")
        print("" if each is None else f"; {each:.4f} per 1k tokens")
    if lost["requests"]:
        print(f"lost by processes that were killed: {lost['requests']} requests, {lost['tokens']} tokens")
