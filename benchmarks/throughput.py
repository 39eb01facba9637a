"""Tokens a second of whole servers, side by side: stock vLLM and ours, without and with API keys.

    python benchmarks/throughput.py [--model NAME] [--rounds N] [--requests N]

All servers run at the same time and are asked in turns by ``vllm bench serve``, every other round in the opposite
order, so that what slows the machine slows all alike. Of each round counts how a server did beside stock in the same
round; the median over the rounds is shown, and that of the processor time which the API server took, a request.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil
from servers import VLLM, clean, server, wait_for

MODELS = Path(__file__).resolve().parents[1] / ".models"
OURS = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders"}
STOCK, STOCK_KEY, PLAIN, CLOSED = "stock", "stock, --api-key", "ours", "ours, auth and quotas"
OPTIONS = ("--max-num-seqs", "32")
BESIDE = {PLAIN: STOCK, CLOSED: STOCK_KEY}


def closed(folder: Path) -> tuple[dict[str, str], str]:
    """Return the settings of a closed server, and a key."""
    settings = OURS | {
        "VLINDERS_AUTH__KEYS__STORE": f"sqlite:///{folder}/keys.db",
        "VLINDERS_AUTH__KEYS__PEPPER": "env:BENCHMARK_PEPPER",
        "BENCHMARK_PEPPER": "a pepper of the benchmarks, of no use to anybody",
        "VLINDERS_AUTH__AUDIT__PATH": f"{folder}/audit.jsonl",
        "VLINDERS_QUOTAS__TENANTS__ACME__TOKENS_PER_MINUTE": "100000000",
        "VLINDERS_QUOTAS__TENANTS__ACME__CONCURRENT_REQUESTS": "1000",
    }
    made = subprocess.run(
        [sys.executable, "-m", "vllm_vlinders.cli", "keys", "create", "--tenant", "acme"],
        env=clean(**settings),
        capture_output=True,
        text=True,
        check=True,
    )
    return settings, made.stdout.strip()


def measure(url: str, key: str, model: Path, requests: int, report: Path) -> float:
    """Return the output tokens a second of a load of `requests`, 32 at a time."""
    subprocess.run(
        [
            *(*VLLM, "bench", "serve", "--backend", "openai", "--base-url", url, "--model", "tiny"),
            *("--tokenizer", str(model), "--dataset-name", "random", "--random-input-len", "64"),
            *("--random-output-len", "64", "--ignore-eos", "--num-prompts", str(requests)),
            *("--max-concurrency", "32", "--disable-tqdm", "--save-result", "--result-filename", str(report)),
        ],
        env=clean(OPENAI_API_KEY=key),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["completed"] == requests
    return float(found["output_throughput"])


def processor_seconds(url: str) -> float:
    """Return the processor time that the API server behind an address has taken so far."""
    port = url.rpartition(":")[2]
    known = psutil.process_iter(["cmdline"])
    (process,) = (each for each in known if {"serve", port} <= set(each.info["cmdline"] or ()))
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def contenders(model: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Start all servers; yield the address of each, and the key that opens the closed ones."""
    bound = {"VLLM_CPU_OMP_THREADS_BIND": str(max(os.sched_getaffinity(0)))}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        settings, key = closed(Path(name))
        stock, ours = clean(**bound), clean(**bound, **OURS, XDG_STATE_HOME=name)
        urls = {
            STOCK: stack.enter_context(server(model, stock, *OPTIONS)),
            PLAIN: stack.enter_context(server(model, ours, *OPTIONS)),
            STOCK_KEY: stack.enter_context(server(model, stock, *OPTIONS, "--api-key", key)),
            CLOSED: stack.enter_context(server(model, ours | settings, *OPTIONS)),
        }
        for url in urls.values():
            wait_for(url)
        yield urls, key


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["tiny-deep", "tiny-wide"], default="tiny-deep")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=200, help="of a server in a round")
    arguments = parser.parse_args()
    model, requests = MODELS / arguments.model, arguments.requests
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    with contenders(model) as (urls, key), tempfile.NamedTemporaryFile() as report:
        for number in range(arguments.rounds + 1):
            for contender in list(urls) if number % 2 else reversed(urls):
                url = urls[contender]
                before = processor_seconds(url)
                rate = measure(url, key, model, requests, Path(report.name))
                if number:  # the first round warms up
                    rates[contender].append(rate)
                    costs[contender].append(1e3 * (processor_seconds(url) - before) / requests)
    for contender, found in rates.items():
        print(
            f"{contender}: {min(found):.0f} to {max(found):.0f}, median {median(found):.0f} tokens a second; "
            f"{median(costs[contender]):.2f} ms of the API server's processor a request"
        )
    shares = {
        ours: median(a / b for a, b in zip(rates[ours], rates[stock], strict=True))
        for ours, stock in BESIDE.items()
    }
    for ours, share in shares.items():
        print(f"{ours}, of {BESIDE[ours]} in the same round: {100 * share:.1f} % (target: 99 %)")
    return 0 if min(shares.values()) >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
