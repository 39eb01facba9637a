"""``vlinders_patch_info``: one series per patch and kind of process, value 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from prometheus_client import Gauge


@cache
def _gauge() -> Gauge:
    """Made on first use: prometheus_client must be imported after vLLM set its multiprocess directory."""
    return Gauge(
        "vlinders_patch_info",
        "Patches of vllm-vlinders and of companies, by state and kind of process.",
        ["patch", "state", "process", "vllm"],
        multiprocess_mode="livemax",
    )


def record_patch_info(reports: Iterable[Mapping[str, Any]]) -> None:
    """Set the series of all patches in `reports` (one per process, as processes publish them)."""
    for report in reports:
        for patch in report["patches"]:
            _gauge().labels(patch["patch"], patch["state"], report["role"], report["vllm"]).set(1)
