"""vLLM's own output processor, patched: what is counted as cached is what its answers say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("vllm")
COUNT = """
import json, sys
from types import SimpleNamespace
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.metrics.stats import PrefillStats
import inspect
import vllm_vlinders.patches.api_server_output_processor_meter as patch
from vllm_vlinders.serving.meter import Meter

def request(name, parameters):
    given = {"request_id": name, "external_req_id": name, "prompt_token_ids": [1] * 10, "arrival_time": 0.0}
    wanted = inspect.signature(EngineCoreRequest).parameters
    fields = {key: given.get(key) for key, p in wanted.items() if p.default is p.empty or key in given}
    return EngineCoreRequest(**{**fields, ("params" if "params" in wanted else "sampling_params"): parameters})

def output(name, cached=None, ended=False):
    stats = None
    if cached is not None:
        stats = PrefillStats()
        stats.num_prompt_tokens, stats.num_cached_tokens = 10, cached
    return EngineCoreOutput(request_id=name, new_token_ids=[7], prefill_stats=stats,
                            finish_reason=FinishReason.LENGTH if ended else None)

def run(kind, n, ends):
    exchange = SimpleNamespace(meter=Meter(), finished=False)
    patch.exchange_of = lambda request_id: exchange
    parameters = SamplingParams(n=n, output_kind=RequestOutputKind[kind], detokenize=False, max_tokens=9)
    processor, queue = OutputProcessor(None, log_stats=False), RequestOutputCollector(RequestOutputKind[kind], "r")
    parent = ParentRequest(request("r", parameters)) if n > 1 else None
    names = ["r"] if parent is None else [parent.get_child_info(index)[0] for index in range(n)]
    for index, name in enumerate(names):
        processor.add_request(request(name, parameters), None, parent, index, queue)
    said = []
    begins = [output(name, 16 * index) for index, name in enumerate(names)]
    for outputs in [begins, *([output(names[index], ended=True) for index in group] for group in ends)]:
        processor.process_outputs(outputs)
        if (made := queue.get_nowait()) is not None:
            said.append(made.num_cached_tokens)
    return exchange.meter.cached, said[0 if kind == "DELTA" else -1]

print("RESULT " + json.dumps([run(*case) for case in json.loads(sys.argv[1])]))
"""
CASES = [
    (kind, n, ends)
    for kind in ("DELTA", "FINAL_ONLY")
    for n, ends in [
        (1, [[0]]),
        (3, [[0], [1], [2]]),
        (3, [[2], [0], [1]]),
        (3, [[0, 1, 2]]),
        (3, [[2, 1], [0]]),
        (2, [[1, 0]]),
    ]
]


def test_what_was_cached_is_counted_as_the_answers_say() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, json.dumps(CASES)],
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_CUSTOM_PATCHES": "vllm_vlinders"},
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert [counted for counted, _ in found] == [said for _, said in found]
    assert {said for _, said in found} == {0, 16, 32}
