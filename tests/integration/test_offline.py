"""``LLM.generate(priority=[…])`` speaks 0..1000, larger first; the urgent are not preempted.

vLLM's CPU platform turns asynchronous scheduling off; tests/patches/test_async_scheduling.py has its scheduler.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from server import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_server")]
SCRIPTS = Path(__file__).parent / "offline"
PATIENCE_SECONDS = 1500


def run(script: str, *arguments: str, **variables: str) -> dict[str, Any]:
    """Run one of the offline scripts with the patches; return what it found."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        env=clean_environment(VLLM_CUSTOM_PATCHES="vllm_vlinders", **variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stderr[-3000:]
    assert found, done.stdout[-3000:]
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


def test_generate_serves_the_larger_priority_first() -> None:
    result = run("order.py")

    assert result["order"] == [2, 6, 4, 1, 5, 0, 3]
    assert result["answered"]
    for value in ("-1", "1001"):
        assert value in result["refusals"][value]
        assert "from 0 to 1000" in result["refusals"][value]
    assert result["alive"]


def test_when_kv_blocks_run_out_the_urgent_request_is_never_preempted() -> None:
    result = run("preemption.py")

    assert sum(result["normal"]) > 0
    assert result["urgent"] == 0
    assert result["as_alone"]


@pytest.mark.parametrize(
    "mode",
    [
        *("plain", "no prefix caching", "short chunks", "n-gram speculation", "lora", "structured output"),
        "streaming input",
    ],
)
def test_an_urgent_request_takes_the_slot_of_a_running_one_which_resumes_unharmed(mode: str) -> None:
    if mode == "n-gram speculation" and version("vllm").startswith("0.30."):
        pytest.skip("vLLM 0.30, stock too, speculates by n-gram only where Triton runs")

    result = run("slots.py", mode)

    assert mode != "streaming input" or not result["preemptions in 10 steps"]
    assert result["preemptions"] == 1
    assert result["order"][0] == "urgent"
    assert result["as_alone"]
    assert result["left"] == [0, 0]


def test_of_5000_random_requests_all_are_accounted_for_and_nothing_is_left_behind() -> None:
    freely = {
        "VLINDERS_SCHEDULER__PREEMPTION__MAX_PER_SECOND": "1000",
        "VLINDERS_SCHEDULER__PREEMPTION__COOLDOWN_SECONDS": "0",
        "VLINDERS_SCHEDULER__MAX_QUEUE": "60",
        "VLINDERS_SCHEDULER__LOCALITY__SLACK_TOKENS": "100",
    }
    result = run("stress.py", "5000", **freely)

    assert sum(result["ends"].values()) == 5000
    assert set(result["ends"]) == {"length", "left", "vlinders:deadline", "vlinders:queue_full"}
    assert result["counts"]["preemptions_slots"] > 50
    assert "policy_errors" not in result["counts"]
    assert set(result["left"].values()) == {0}


def test_a_reset_and_a_pause_of_the_engine_lose_and_change_nothing() -> None:
    result = run("interruptions.py")

    assert result["reset"]
    assert result["pause"]
    assert not result["ran in the pause"]
    assert result["waiting in the pause"] == 4
    assert result["left"] == [0, 0, 0]


def test_pooling_requests_are_ordered_and_turned_away_too() -> None:
    result = run("pooling.py")

    assert result["order"] == ["1000/2", "50/4", "5/1", "0/0", "0/3"]
    assert result["empty"] == ["late"]
    assert result["shed"] == 1
    assert result["left"] == 0


def test_sessions_find_their_prefix_after_an_overflow_and_nothing_is_left_behind() -> None:
    result = run("sessions.py", VLINDERS_SCHEDULER__LOCALITY__SLACK_TOKENS="1000")

    assert result["session"] == 192
    assert result["other"] == 0
    assert result["hot overtakes"]
    assert result["after reset"] == [0, True]
    assert result["preemptions"] > 0
    assert result["left"] == [0, 0]
    assert result["within budget"]
    assert result["held after its time"] == 0
