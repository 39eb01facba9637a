"""Tokens a second of whole servers, side by side: stock vLLM and ours, without and with API keys.

    python benchmarks/throughput.py [--model NAME] [--rounds N] [--requests N]

All servers run at the same time and are asked in turns by the client of ``vllm bench serve``, loaded once, every
other round in the opposite order, so that what slows the machine slows all alike. Of each round counts how a server did
beside stock in the same round. Shown is the median over the rounds, with the interval in which it lies 95 times of 100
when rounds are drawn anew, and the processor time which the API server took for a request.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import psutil
from servers import clean, server, wait_for

MODELS = Path(__file__).resolve().parents[1] / ".models"
OURS = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders"}
STOCK, STOCK_KEY, PLAIN, CLOSED = "stock", "stock, --api-key", "ours", "ours, auth and quotas"
OPTIONS = ("--max-num-seqs", "32")
BESIDE = {PLAIN: STOCK, CLOSED: STOCK_KEY}
TARGET = 99.0


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


class Client:
    """The client of ``vllm bench serve``: 32 requests at a time, of 64 tokens in and 64 out."""

    def __init__(self, model: Path, requests: int) -> None:
        from vllm.benchmarks import serve
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = FlexibleArgumentParser()
        serve.add_cli_args(parser)
        self._serve, self._requests = serve.main, requests
        self._arguments = parser.parse_args(
            [
                *("--backend", "openai", "--model", "tiny", "--tokenizer", str(model)),
                *("--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "64"),
                *("--ignore-eos", "--num-prompts", str(requests)),
                *("--max-concurrency", "32", "--disable-tqdm"),
            ]
        )

    def measure(self, url: str, key: str) -> float:
        """Return the output tokens a second of the server at `url`."""
        os.environ["OPENAI_API_KEY"] = key
        with redirect_stdout(StringIO()):
            found = self._serve(Namespace(**vars(self._arguments) | {"base_url": url}))
        assert found["completed"] == self._requests
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
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--requests", type=int, default=96, help="of a server in a round")
    arguments = parser.parse_args()
    model, requests = MODELS / arguments.model, arguments.requests
    client = Client(model, requests)
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    with contenders(model) as (urls, key):
        for number in range(arguments.rounds + 1):
            for contender in list(urls) if number % 2 else reversed(urls):
                url = urls[contender]
                before = processor_seconds(url)
                rate = client.measure(url, key)
                if number:  # the first round warms up
                    rates[contender].append(rate)
                    costs[contender].append(1e3 * (processor_seconds(url) - before) / requests)
    for contender, found in rates.items():
        print(
            f"{contender}: {min(found):.0f} to {max(found):.0f}, median {median(found):.0f} tokens a second; "
            f"{median(costs[contender]):.2f} ms of the API server's processor a request"
        )
    met = True
    for ours, stock in BESIDE.items():
        shares = [100 * a / b for a, b in zip(rates[ours], rates[stock], strict=True)]
        low, high = interval(shares)
        share = f"{median(shares):.1f} % ({low:.1f} to {high:.1f}; target {TARGET:.0f} %)"
        print(f"{ours}, of {stock} in the same round: {share}")
        met = met and median(shares) >= TARGET
    return 0 if met else 1


def interval(found: list[float]) -> tuple[float, float]:
    """Return the bounds of the median in 95 of 100 samples drawn from `found`, with replacement."""
    draw = random.Random(1)
    medians = sorted(median(draw.choices(found, k=len(found))) for _ in range(4000))
    return medians[100], medians[-101]


if __name__ == "__main__":
    sys.exit(main())
