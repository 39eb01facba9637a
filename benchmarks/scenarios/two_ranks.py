"""The scenario of two ranks: a real server with two API servers and two engine cores, and real clients."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from servers import server, wait_for

from scenarios.conversations import (
    ANSWERED,
    HIT_RATE,
    NOISE_ANSWER,
    NOISE_PROMPT,
    SAID,
    SESSIONS,
    TURNS,
    Figures,
    some_tokens,
)
from scenarios.engine import MODELS

SKEW = "load of the busier rank, of the mean"
_OPTIONS = (
    *("--data-parallel-size", "2", "--api-server-count", "2", "--max-num-seqs", str(SESSIONS + 8)),
    *("--block-size", "32", "--num-gpu-blocks-override", "256", "--enable-prompt-tokens-details"),
)
_PAUSE_SECONDS, _LOOK_SECONDS = 0.5, 0.2
_LOAD = re.compile(r'^vllm:num_requests_(?:running|waiting)\{engine="(\d+)".*\} (\S+)$', re.MULTILINE)


def two_ranks(contender: str, noisy: int = 0) -> Figures:
    """Eight sessions of six turns on two ranks of 256 KV blocks each, beside so many noisy clients."""
    del contender
    over = threading.Event()
    variables = os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    with (
        server(MODELS / "tiny", variables, *_OPTIONS) as url,
        ThreadPoolExecutor(SESSIONS + noisy + 1) as clients,
    ):
        wait_for(url)
        watching = clients.submit(_watch, url, over)
        noises = [clients.submit(_make_noise, url, over) for _ in range(noisy)]
        talks = [clients.submit(_converse, url, number) for number in range(SESSIONS)]
        try:
            found = [talk.result() for talk in talks]
        finally:
            over.set()
        for noise in noises:
            noise.result()
        skew = watching.result()
    hits, prompts = (sum(part) for part in zip(*found, strict=True))
    return {HIT_RATE: 100 * hits / prompts, SKEW: skew}


def two_ranks_noise_8(contender: str) -> Figures:
    """The same with eight noisy clients."""
    return two_ranks(contender, 8)


def _converse(url: str, number: int) -> tuple[int, int]:
    """Return the cached and all prompt tokens of a session."""
    draw, hits, prompts = random.Random(), 0, 0
    said: list[int] = []
    time.sleep(number * _PAUSE_SECONDS / SESSIONS)
    name = {"X-Session-Id": f"conversation {number} {draw.random()}"}
    for _ in range(TURNS):
        said += some_tokens(draw, SAID)
        usage, answer = _complete(url, said, ANSWERED, name)
        hits += (usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0
        prompts += usage["prompt_tokens"]
        said += answer
        time.sleep(_PAUSE_SECONDS)
    return hits, prompts


def _make_noise(url: str, over: threading.Event) -> None:
    """Send requests that nobody continues."""
    draw = random.Random()
    while not over.is_set():
        _complete(url, some_tokens(draw, NOISE_PROMPT), NOISE_ANSWER, {})


def _complete(url: str, prompt: list[int], tokens: int, headers: dict[str, str]) -> tuple[Any, list[int]]:
    """Return usage and tokens of an answer, by a connection of its own: any API server may get it."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    answer = httpx.post(
        f"{url}/v1/completions", json=body | {"return_token_ids": True}, headers=headers, timeout=600
    ).raise_for_status()
    return answer.json()["usage"], answer.json()["choices"][0]["token_ids"]


def _watch(url: str, over: threading.Event) -> float:
    """Return the load of the busier rank over the mean of both, in requests, over the time until `over`."""
    loads: Counter[str] = Counter()
    while not over.wait(_LOOK_SECONDS):
        for engine, count in _LOAD.findall(httpx.get(f"{url}/metrics").text):
            loads[engine] += int(float(count))
    return max(loads.values()) / (loads.total() / 2)
