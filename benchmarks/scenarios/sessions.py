"""Run the scenarios of sessions, stock and ours in turns, and print the table with its targets.

``python -m scenarios.sessions [--write DOCS]``; DOCS gets the section of ``benchmarks.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from scenarios.__main__ import Table, Target, markdown, run
from scenarios.conversations import HIT_RATE, NOISE_RATE

CASES = ("sessions", "sessions_noise_4", "sessions_noise_8")
CONTENDERS = ("stock fcfs", "ours")
_BEGIN, _END = "<!-- sessions -->\n", "<!-- end of sessions -->"


def targets(table: Table) -> list[Target]:
    """Return the promises, with what was measured."""
    ours, stock = (table["sessions_noise_8", contender] for contender in ("ours", "stock fcfs"))
    noise = ours[NOISE_RATE] / stock[NOISE_RATE]
    return [
        Target("sessions_noise_8: hit rate of the sessions, %", ours[HIT_RATE], 70, at_least=True),
        Target("sessions_noise_8: tokens of noise a step, of stock", noise, 0.95, at_least=True),
    ]


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the folder of benchmarks.md")
    arguments = parser.parse_args()
    table: Table = {}
    for case in CASES:
        for contender in CONTENDERS:
            table[case, contender] = run(case, contender)
            print(case, contender, table[case, contender], flush=True)
    promised = targets(table)
    text = markdown(table, promised)
    print("\n" + text)
    if arguments.write:
        page = arguments.write / "benchmarks.md"
        before, mark, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
        _, end, after = rest.partition(_END)
        machine = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
        page.write_text(f"{before}{mark}Measured on {machine}.\n\n{text}{end}{after}", encoding="utf-8")
    return 0 if all(target.met for target in promised) else 1


if __name__ == "__main__":
    sys.exit(main())
