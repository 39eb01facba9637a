"""A worker for ``--worker-cls`` whose steps take as long as those of a big model on a GPU.

The tiny model alone is so fast that on few cores the engine outruns the API server, which then tells
late what runs and what waits; a paced engine also leaves the processor to the others. It tells in the
server's log in which order requests start, which clients could only guess from their answers.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

STEP_SECONDS = 0.015
STARTED = "paced worker: started "
"""What a line of the log begins with that ends with the engine's id of a request."""


class PacedWorker(CPUWorker):
    """vLLM's worker for CPUs, with a pause in each step."""

    def execute_model(self, scheduler_output: Any, *args: Any, **options: Any) -> Any:
        """Tell what starts, pause, then execute as vLLM does."""
        for request in scheduler_output.scheduled_new_reqs:
            print(STARTED + request.req_id, flush=True)
        time.sleep(STEP_SECONDS)
        return super().execute_model(scheduler_output, *args, **options)
