"""``vlinders_patch_info``: one series per patch, kind of process and state; 1 for the state it is in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_vlinders.metrics.catalogue import PATCH_INFO
from vllm_vlinders.metrics.families import gauge

_shown: set[tuple[str, ...]] = set()


def record_patch_info(reports: Iterable[Mapping[str, Any]]) -> None:
    """Set the series of all patches in `reports` (one per process, as processes publish them)."""
    series = {
        (patch["patch"], patch["state"], report["role"], report["vllm"])
        for report in reports
        for patch in report["patches"]
    }
    for labels in _shown - series:
        gauge(PATCH_INFO).labels(*labels).set(0)
    for labels in series:
        gauge(PATCH_INFO).labels(*labels).set(1)
    _shown.update(series)
