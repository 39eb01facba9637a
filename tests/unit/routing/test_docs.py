"""What docs/routing.md shows is what its command prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCENARIOS = {
    "simple_code_completion": "code",
    "complex_code_generation": "tiny",
    "code_explanation": "code",
    "architecture_design": "tiny",
    "simple_question": "code",
}


def test_the_scenarios_of_the_docs_are_routed_as_shown(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "routing.md").read_text()
    walk = text.partition("## Try it")[2].partition("`--explain`")[0]
    lines = [line.removeprefix("    ") for line in walk.splitlines() if line.startswith("    ")]
    first = next(at for at, line in enumerate(lines) if line.startswith("PROMPT"))
    script, shown = lines[:first], lines[first:]
    command = f"vlinders() {{ '{sys.executable}' -m vllm_vlinders.cli \"$@\"; }}\n" + "\n".join(script)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VLINDERS_")}
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": f"{ROOT}:{environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    printed = [re.split(r"  +", line.strip()) for line in done.stdout.splitlines()]
    expected = [re.split(r"  +", line.strip()) for line in shown]
    assert [row[:-1] for row in printed] == [row[:-1] for row in expected]
    complexities = [[float(row[-1]) for row in rows[1:]] for rows in (printed, expected)]
    assert complexities[0] == pytest.approx(complexities[1], abs=0.1)
    assert {row[2]: row[1] for row in printed[1:]} == SCENARIOS
