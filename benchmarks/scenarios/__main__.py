"""Run every scenario, the contenders in turns, print the table with its targets, and draw the plot.

``python -m scenarios [--rounds N] [--write DOCS]``; DOCS gets ``benchmarks.md`` and the plot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scenarios.cases import AGING_SECONDS, Figures
from scenarios.engine import STEP_SECONDS

HERE = Path(__file__).resolve().parent
Table = dict[tuple[str, str], Figures]
RUNS = {
    "starvation": ("stock fcfs", "stock priority", "ours"),
    "fairness": ("stock fcfs", "ours"),
    "fairness_alone": ("ours",),
    "burst": ("stock fcfs", "ours"),
    "urgent": ("stock fcfs", "stock priority", "ours"),
    "mixed": ("stock fcfs", "stock priority", "ours"),
    "plain": ("stock fcfs", "ours"),
}
TIMED = "plain"
_SETTINGS = {"starvation": {"VLINDERS_SCHEDULER__AGING_SECONDS": str(AGING_SECONDS)}}
_WAIT, _TTFT_B = "longest wait of low, steps", "mean TTFT of B, steps"
_TTFT_URGENT, _RATE = "mean TTFT of the urgent, steps", "tokens a step"


@dataclass(frozen=True)
class Target:
    """What is promised: `value` is at most or at least `limit`."""

    text: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Tell whether it holds."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def measure(rounds: int) -> Table:
    """Run all; what depends on the machine several times in turns, of which the medians count."""
    table: Table = {}
    for case, contenders in RUNS.items():
        found: dict[str, list[Figures]] = defaultdict(list)
        for _ in range(rounds if case == TIMED else 1):
            for contender in contenders:
                found[contender].append(run(case, contender))
        for contender, runs in found.items():
            table[case, contender] = {name: median(r[name] for r in runs) for name in runs[0]}
            print(f"{case:15} {contender:15} {table[case, contender]}", flush=True)
    return table


def run(case: str, contender: str) -> Figures:
    """Run one scenario in a process of its own."""
    ours = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders", **_SETTINGS.get(case, {})} if contender == "ours" else {}
    base = {name: v for name, v in os.environ.items() if not name.startswith(("VLINDERS_", "VLLM_CUSTOM"))}
    done = subprocess.run(
        [sys.executable, "-m", "scenarios.cases", case, contender],
        cwd=HERE.parent,
        env=base | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"} | ours,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("FIGURES "):
            figures: Figures = json.loads(line.removeprefix("FIGURES "))
            return figures
    sys.exit(f"scenario {case}, {contender}: no figures\n{done.stderr[-3000:]}")


def targets(table: Table) -> list[Target]:
    """Return the promises, with what was measured."""
    stock = {case: table[case, "stock fcfs"] for case, _ in table if (case, "stock fcfs") in table}
    ours = {case: table[case, "ours"] for case, _ in table}
    by_priority = table["starvation", "stock priority"]
    bound = 4 * AGING_SECONDS / STEP_SECONDS + 16 / 4 * 32
    urgent = table["urgent", "stock priority"][_TTFT_URGENT] / ours["urgent"][_TTFT_URGENT]
    high = ours["starvation"]["tokens of high"] / by_priority["tokens of high"]
    small = ours["fairness"][_TTFT_B] / ours["fairness_alone"][_TTFT_B]
    speed = ours["plain"]["tokens a second"] / stock["plain"]["tokens a second"]
    rate = ours["fairness"][_RATE] / stock["fairness"][_RATE]
    return [
        Target("starvation: the longest wait of low, steps, at most its bound", ours["starvation"][_WAIT], bound),
        Target("starvation: tokens of high, of those under stock priority", high, 0.9, at_least=True),
        Target("fairness: mean TTFT of B, of that which it has alone", small, 1.5),
        Target("fairness: tokens a step, of stock fcfs", rate, 0.97, at_least=True),
        Target("urgent: TTFT, stock priority's over ours", urgent, 5, at_least=True),
        Target("plain: tokens a second, of stock fcfs", speed, 0.99, at_least=True),
    ]  # fmt: skip


def markdown(table: Table, promised: list[Target]) -> str:
    """Return both tables."""
    lines = ["| scenario | contender | figures |", "|---|---|---|"]
    for (case, contender), figures in table.items():
        shown = ", ".join(f"{name}: {value:,.1f}" for name, value in figures.items())
        lines.append(f"| {case} | {contender} | {shown.replace('inf', 'never')} |")
    lines += ["", "| target | measured | limit | met |", "|---|---|---|---|"]
    for target in promised:
        sign = "at least" if target.at_least else "at most"
        met = "yes" if target.met else "no"
        lines.append(f"| {target.text} | {target.value:.3g} | {sign} {target.limit:g} | {met} |")
    return "\n".join(lines) + "\n"


def draw(table: Table, path: Path) -> None:
    """Draw the waits of each scenario, side by side, on logarithmic scales."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "scenarios"
    from matplotlib import pyplot as plt

    shown = {"starvation": _WAIT, "burst": _TTFT_B, "fairness": _TTFT_B, "urgent": _TTFT_URGENT,
             "mixed": "p95 TTFT of chat, steps"}  # fmt: skip
    figure, axes = plt.subplots(1, len(shown), figsize=(13, 3.2), layout="constrained")
    for axis, (case, name) in zip(axes, shown.items(), strict=True):
        bars = {contender: f[name] for (found, contender), f in table.items() if found == case}
        top = 1480.0
        axis.bar(list(bars), [min(value, top) for value in bars.values()], color=["#999", "#667", "#2a7"])
        axis.set_yscale("log")
        axis.set_title(f"{case}\n{name}", fontsize=8)
        axis.tick_params(labelsize=7)
        for place, value in enumerate(bars.values()):
            text = "never" if value == float("inf") else f"{value:.0f}"
            axis.annotate(text, (place, min(value, top)), ha="center", va="bottom", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of what depends on the machine")
    parser.add_argument("--write", type=Path, help="the folder of benchmarks.md and the plot")
    arguments = parser.parse_args()
    table = measure(arguments.rounds)
    promised = targets(table)
    text = markdown(table, promised)
    print("\n" + text)
    if arguments.write:
        draw(table, arguments.write / "scenarios.svg")
        page = arguments.write / "benchmarks.md"
        before, mark, rest = page.read_text(encoding="utf-8").partition("<!-- scenarios -->\n")
        _, end, after = rest.partition("<!-- end -->")
        machine = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
        page.write_text(f"{before}{mark}Measured on {machine}.\n\n{text}{end}{after}", encoding="utf-8")
    return 0 if all(target.met for target in promised) else 1


if __name__ == "__main__":
    sys.exit(main())
