"""A worker for ``--worker-cls`` whose steps take as long as those of a big model on a GPU.

The tiny model alone is so fast that on few cores the engine outruns the API server, which then tells
late what runs and what waits; a paced engine also leaves the processor to the others.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

STEP_SECONDS = 0.015


class PacedWorker(CPUWorker):
    """vLLM's worker for CPUs, with a pause in each step."""

    def execute_model(self, *args: Any, **options: Any) -> Any:
        """Pause, then execute as vLLM does."""
        time.sleep(STEP_SECONDS)
        return super().execute_model(*args, **options)
