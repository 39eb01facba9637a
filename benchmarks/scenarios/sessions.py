"""Run the scenarios of sessions, stock and ours in turns, and print the table with its targets.

``python -m scenarios.sessions [--write DOCS]``; DOCS gets the section of ``benchmarks.md`` and the plot.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from scenarios.__main__ import Table, Target, markdown, run
from scenarios.conversations import HIT_RATE, LATER_TTFT, NOISE_RATE
from scenarios.two_ranks import SKEW

CASES = (
    *("sessions", "sessions_noise_4", "sessions_noise_8", "sessions_uneven", "sessions_wide"),
    *("two_ranks", "two_ranks_noise_8"),
)
CONTENDERS = ("stock fcfs", "ours")
_BEGIN, _END = "<!-- sessions -->\n", "<!-- end of sessions -->"


def targets(table: Table) -> list[Target]:
    """Return the promises, with what was measured."""
    ours, stock = (table["sessions_noise_8", contender] for contender in ("ours", "stock fcfs"))
    noise = ours[NOISE_RATE] / stock[NOISE_RATE]
    wide = table["sessions_wide", "ours"][LATER_TTFT] / table["sessions_wide", "stock fcfs"][LATER_TTFT]
    skew = table["two_ranks_noise_8", "ours"][SKEW]
    apart = table["two_ranks", "ours"][HIT_RATE] - table["sessions", "ours"][HIT_RATE]
    return [
        Target("sessions_noise_8: hit rate of the sessions, %", ours[HIT_RATE], 70, at_least=True),
        Target("sessions_noise_8: tokens of noise a step, of stock", noise, 0.95, at_least=True),
        Target("sessions_wide: TTFT of turns 2 to 6, of stock", wide, 0.6),
        Target("two_ranks: hit rate, minus that of one rank", apart, -2, at_least=True),
        Target("two_ranks_noise_8: load of the busier rank, of the mean", skew, 1.25),
    ]


def draw(table: Table, path: Path) -> None:
    """Draw hit rates and times to the first token, stock beside ours."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sessions"
    from matplotlib import pyplot as plt

    shown = [(case, HIT_RATE) for case in CASES if case != "sessions_wide"] + [("sessions_wide", LATER_TTFT)]
    figure, axes = plt.subplots(1, len(shown), figsize=(13, 2.8), layout="constrained")
    for axis, (case, name) in zip(axes, shown, strict=True):
        values = [table[case, contender][name] for contender in CONTENDERS]
        bars = axis.bar(CONTENDERS, values, color=["#999", "#2a7"])
        axis.bar_label(bars, fmt="%.0f", fontsize=8)
        axis.set_title(f"{case}\n{name}", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_ylim(0, 100 if name == HIT_RATE else None)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the folder of benchmarks.md and the plot")
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
        draw(table, arguments.write / "sessions.svg")
        page = arguments.write / "benchmarks.md"
        before, mark, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
        _, end, after = rest.partition(_END)
        machine = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
        page.write_text(f"{before}{mark}Measured on {machine}.\n\n{text}{end}{after}", encoding="utf-8")
    return 0 if all(target.met for target in promised) else 1


if __name__ == "__main__":
    sys.exit(main())
