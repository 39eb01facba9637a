"""What engine cores count reaches the exposition, from other processes and from such as have ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

COUNT = """
from vllm_vlinders.metrics.catalogue import AGED, PREEMPTIONS
from vllm_vlinders.metrics.engine_counts import EngineCounts
counts = EngineCounts()
counts.set(AGED, "", 1)
counts.set(AGED, "", {aged})
counts.set(PREEMPTIONS, "slots", 2)
"""
SHOW = """
from prometheus_client import REGISTRY, generate_latest
from vllm_vlinders.metrics.engine_counts import show_engine_counts
show_engine_counts()
print(generate_latest(REGISTRY).decode())
"""
SHOW_AS_VLLM = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from vllm_vlinders.metrics.engine_counts import show_engine_counts
show_engine_counts()
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def run(code: str, **variables: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("api_servers", ["one", "several"])
def test_the_counts_of_processes_that_ended_are_summed(api_servers: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    variables = {"PYTHONPATH": root, "VLINDERS_RUN_DIR": str(tmp_path)}
    if api_servers == "several":
        variables["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "vllm")
        (tmp_path / "vllm").mkdir()

    for aged in (3, 4):
        run(COUNT.format(aged=aged), **variables)
    text = run(SHOW if api_servers == "one" else SHOW_AS_VLLM, **variables)

    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("vlinders_")
    }
    assert found == {("vlinders_aged_total",): 7, ("vlinders_preemptions_total", "slots"): 4}


def test_without_a_run_directory_there_is_no_place() -> None:
    code = (
        "from vllm_vlinders.metrics.engine_counts import *\ntry: EngineCounts()\nexcept OSError: print('no')"
    )

    assert run(code, PYTHONPATH=str(Path(__file__).parents[3])) == "no\n"
