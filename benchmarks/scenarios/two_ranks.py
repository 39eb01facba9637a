"""The scenario of two ranks: a real server with two API servers and two engine cores, and real clients."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx

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
    *("--block-size", "32", "--num-gpu-blocks-override", "256", "--max-model-len", "1024"),
    *("--served-model-name", "tiny", "--enforce-eager", "--enable-prompt-tokens-details"),
)
_START_SECONDS, _PAUSE_SECONDS, _LOOK_SECONDS = 600, 0.5, 0.2
_LOAD = re.compile(r'^vllm:num_requests_(?:running|waiting)\{engine="(\d+)".*\} (\S+)$', re.MULTILINE)


def two_ranks(contender: str, noisy: int = 0) -> Figures:
    """Eight sessions of six turns on two ranks of 256 KV blocks each, beside so many noisy clients."""
    del contender
    over = threading.Event()
    with _server() as url, ThreadPoolExecutor(SESSIONS + noisy + 1) as clients:
        others = [clients.submit(_watch, url, over)]
        others += [clients.submit(_make_noise, url, over) for _ in range(noisy)]
        talks = [clients.submit(_converse, url, number) for number in range(SESSIONS)]
        try:
            found = [talk.result() for talk in talks]
        finally:
            over.set()
        skew, *_ = [other.result() for other in others]
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


def _make_noise(url: str, over: threading.Event) -> float:
    """Send requests that nobody continues; return how many."""
    draw, sent = random.Random(), 0
    while not over.is_set():
        _complete(url, some_tokens(draw, NOISE_PROMPT), NOISE_ANSWER, {})
        sent += 1
    return sent


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


@contextmanager
def _server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(MODELS / "tiny"), *_OPTIONS]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "0|1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    sys.exit("the server did not start")
