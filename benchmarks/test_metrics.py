"""What it costs to count a request, with one API server and with several.

A chat request of 100 outputs passes the stage that measures, has each of its outputs counted, and ends:
with prices, and with the usage ledger. What any request costs in the pipeline is not part of it. Limit:
30 us at the median for recording the request. Counting an output is given beside it: it happens once for
each output of the engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

OUTPUTS, REQUESTS, TENANTS = 100, 5000, 80
LIMIT_SECONDS = 30e-6


def seconds() -> dict[str, float]:
    """Return the medians of recording a request and of counting one output, in processor time."""
    from vllm_vlinders.request_context import RequestContext
    from vllm_vlinders.serving.bookkeeping import active_ledger, open_ledger
    from vllm_vlinders.serving.exchange import Exchange
    from vllm_vlinders.serving.measure import measure, serve_model
    from vllm_vlinders.settings import active_settings

    serve_model("m")
    open_ledger(active_settings())
    ledger = active_ledger()
    assert ledger is not None

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    recorded, counted = [], []
    for number in range(REQUESTS):
        exchange = Exchange(scope, RequestContext("x", tenant=f"t{number % TENANTS}"), receive)
        begin = time.thread_time()
        with contextlib.suppress(StopIteration):
            measure(exchange).send(None)
        middle = time.thread_time()
        meter = exchange.meter
        meter.model, meter.prompt, meter.first_token = "", 200, time.perf_counter()
        for output in range(OUTPUTS):
            meter.output += 1
            meter.waited_for_output(0.01 + output % 7 * 0.004)
        meter.queued.append(0.2)
        exchange.status, exchange.answered = 200, time.perf_counter()
        end = time.thread_time()
        for finish in exchange.on_finish:
            finish()
        recorded.append(time.thread_time() - end + middle - begin)
        counted.append((end - middle) / OUTPUTS)
    ledger.stop()
    half = REQUESTS // 2  # every series is there by then
    return {"request": statistics.median(recorded[half:]), "output": statistics.median(counted[half:])}


@pytest.mark.parametrize("api_servers", ["one", "several"])
def test_counting_a_request_costs_little(api_servers: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VLINDERS_")}
    kept |= {
        "VLINDERS_RUN_DIR": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
        "VLINDERS_QUOTAS__PRICES__DEFAULT__INPUT": "1",
    }
    if api_servers == "several":
        kept["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, __file__], env=kept, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(
        f"\n{api_servers}: a request {found['request'] * 1e6:.1f} us, an output {found['output'] * 1e6:.2f} us"
    )
    assert found["request"] < LIMIT_SECONDS


if __name__ == "__main__":
    print(json.dumps(seconds()))
