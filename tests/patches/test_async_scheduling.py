"""vLLM's asynchronous scheduler, patched: each step is scheduled before the output of the last one is there.

vLLM turns it off on CPUs, so that no server of the tests runs it. Here the scheduler is vLLM's own, and its
worker is a counter: the token at a position is the number of the position, so that one that is lost, doubled
or out of order shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")
MODEL = Path(__file__).parents[2] / ".models" / "tiny"
RUN = """
import json, sys
from collections import deque
from vllm.plugins import load_general_plugins
load_general_plugins()
import torch
from vllm import SamplingParams
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

model, caching = sys.argv[1], sys.argv[2] == "caching"
BLOCK, BLOCKS, PROMPT, LONG, SHORT = 16, 100, 40, 60, 5
init_none_hash(sha256)
hasher = get_request_block_hasher(BLOCK, sha256)
cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=caching)
cache.num_gpu_blocks = BLOCKS
config = VllmConfig(
    model_config=ModelConfig(model=model, dtype="float32", max_model_len=1024),
    cache_config=cache,
    scheduler_config=SchedulerConfig(
        max_num_seqs=2, max_num_batched_tokens=256, max_model_len=1024, async_scheduling=True,
        enable_chunked_prefill=True, is_encoder_decoder=False,
    ),
)
spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
scheduler = AsyncScheduler(
    vllm_config=config, block_size=BLOCK, structured_output_manager=StructuredOutputManager(config),
    kv_cache_config=KVCacheConfig(
        num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    ),
)
pool = scheduler.kv_cache_manager.block_pool
free = pool.get_num_free_blocks()
said, ended, in_flight, stale = {}, [], deque(), []

def add(number, priority, tokens):
    name = f"r{number}"
    said[name] = []
    parameters = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    parameters.update_from_generation_config({}, 2)
    scheduler.add_request(Request(
        request_id=name, prompt_token_ids=[number] * PROMPT, sampling_params=parameters, pooling_params=None,
        priority=-priority, block_hasher=hasher,
    ))

def schedule():
    before = scheduler.waiting.desk.counts["preemptions_slots"]
    output = scheduler.schedule()
    if scheduler.waiting.desk.counts["preemptions_slots"] > before:
        stale.extend(r.num_stale_output_tokens for r in scheduler.waiting if r.num_preemptions)
    sampled = {}
    for name in output.num_scheduled_tokens:
        request = scheduler.requests[name]
        sampled[name] = [] if request.is_prefill_chunk else [request.num_computed_tokens]
    in_flight.append((output, sampled))

def receive():
    output, sampled = in_flight.popleft()
    names = list(sampled)
    for outputs in scheduler.update_from_output(output, ModelRunnerOutput(
        req_ids=names, req_id_to_index={name: i for i, name in enumerate(names)},
        sampled_token_ids=[sampled[name] for name in names], logprobs=None, prompt_logprobs_dict={}, pooler_output=[],
    )).values():
        for one in outputs.outputs:
            said[one.request_id] += one.new_token_ids
            if one.finish_reason is not None:
                ended.append(one.request_id)

def step():
    schedule()
    if len(in_flight) > 1:
        receive()

add(1, 0, LONG)
add(2, 0, LONG)
for _ in range(10):
    step()
add(3, 100, SHORT)
for _ in range(300):
    if not scheduler.has_unfinished_requests():
        break
    step()
while in_flight:
    receive()
scheduler.schedule()
print("RESULT " + json.dumps({
    "preempted": scheduler.waiting.desk.counts["preemptions_slots"], "stale": stale, "order": ended,
    "said": said, "wanted": {name: list(range(PROMPT, PROMPT + tokens))
                             for name, tokens in (("r1", LONG), ("r2", LONG), ("r3", SHORT))},
    "blocks": [free, pool.get_num_free_blocks()],
}))
"""


@pytest.mark.parametrize("caching", ["caching", "no caching"])
def test_who_makes_room_with_output_in_flight_loses_and_repeats_no_token(caching: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(MODEL), caching],
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_CUSTOM_PATCHES": "vllm_vlinders", "HF_HUB_OFFLINE": "1"},
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.rpartition("RESULT ")[2])

    assert result["preempted"] == 1
    assert result["stale"] == [1]
    assert result["order"][0] == "r3"
    assert result["said"] == result["wanted"]
    assert len(set(result["blocks"])) == 1
