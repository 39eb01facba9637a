"""``LLM.generate(priority=[…])`` speaks 0..1000, larger first; the urgent are not preempted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_server")]
SCRIPTS = Path(__file__).parent / "offline"
MODES = ("async", "sync")


def run(script: str, mode: str) -> dict[str, Any]:
    """Run one of the offline scripts with the patches; return what it found."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), mode],
        env=clean_environment(VLLM_CUSTOM_PATCHES="vllm_vlinders"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stderr[-3000:]
    assert found, done.stdout[-3000:]
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


@pytest.mark.parametrize("mode", MODES)
def test_generate_serves_the_larger_priority_first(mode: str) -> None:
    result = run("order.py", mode)

    assert result["order"] == [2, 6, 4, 1, 5, 0, 3]
    assert result["answered"]
    for value in ("-1", "1001"):
        assert value in result["refusals"][value]
        assert "from 0 to 1000" in result["refusals"][value]
    assert result["alive"]


@pytest.mark.parametrize("mode", MODES)
def test_when_kv_blocks_run_out_the_urgent_request_is_never_preempted(mode: str) -> None:
    result = run("preemption.py", mode)

    assert result["scheduler"] == ("AsyncScheduler" if mode == "async" else "Scheduler")
    assert sum(result["normal"]) > 0
    assert result["urgent"] == 0
    assert result["as_alone"]
