"""What the plugin costs when a process starts. Each figure is taken inside a process of its own.

Limits: 5 ms with nothing enabled and no vLLM submodule imported; 150 ms with all patches enabled. The
first process after an installation computes the fingerprints and has no limit; all later ones read
the cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

ROUNDS = 5
# vLLM has imported its argument parser, and what that needs, before it loads plugins.
CALL = """
import json, sys, time
import vllm.engine.arg_utils
before = {name for name in sys.modules if name.startswith("vllm.")}
started = time.perf_counter()
from vllm_vlinders.plugin import register
register()
seconds = time.perf_counter() - started
after = {name for name in sys.modules if name.startswith("vllm.")}
print(json.dumps([seconds, sorted(after - before)]))
"""


def start(**environ: str) -> float:
    base = {key: value for key, value in os.environ.items() if key != "VLLM_CUSTOM_PATCHES"}
    command = [sys.executable, "-c", CALL]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=base | environ)
    seconds, imported = json.loads(done.stdout.splitlines()[-1])
    assert imported == []
    return float(seconds)


@pytest.mark.parametrize(
    ("case", "limit_ms"), [("nothing enabled", 5), ("all, cold cache", None), ("all, warm cache", 150)]
)
def test_plugin_call(benchmark, tmp_path: Path, case: str, limit_ms: int | None) -> None:
    seconds: list[float] = []

    def one_process() -> None:
        folder = tmp_path / (str(len(seconds)) if "cold" in case else "cache")
        enabled = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders", "XDG_CACHE_HOME": str(folder)}
        seconds.append(start(**({} if case == "nothing enabled" else enabled)))

    benchmark.pedantic(one_process, rounds=ROUNDS, warmup_rounds=1)
    inside = [round(1000 * value, 2) for value in seconds[1:]]
    benchmark.extra_info["call_ms"] = inside
    print(f"\n  {case}: the call takes {median(inside):.2f} ms (median of {inside}), limit {limit_ms}")
    assert limit_ms is None or median(inside) < limit_ms
