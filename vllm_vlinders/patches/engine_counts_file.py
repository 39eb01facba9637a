"""The one file in which an engine core keeps its counters for ``/metrics``."""

from __future__ import annotations

from functools import cache

from vllm_vlinders.logs import make_logger
from vllm_vlinders.metrics.engine_counts import EngineCounts
from vllm_vlinders.settings import active_settings


@cache
def counts_file() -> EngineCounts | None:
    """Return where this process keeps its counters; None if that cannot be written."""
    try:
        return EngineCounts()
    except OSError as error:
        make_logger(active_settings().logging).error(
            "the counts of this engine core are not shown", problem=str(error)
        )
        return None
