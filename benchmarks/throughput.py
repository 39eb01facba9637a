"""Tokens a second of whole servers, side by side: stock vLLM and ours, without and with API keys.

    python benchmarks/throughput.py [--rounds N] [--requests N]

All servers run at the same time and are asked in turns by ``vllm bench serve``, so that what slows the machine slows
all alike. Of each round counts how a server did beside stock in the same round; the median over the rounds is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx

MODEL = Path(__file__).resolve().parents[1] / ".models" / "tiny-deep"
VLLM = (sys.executable, "-m", "vllm.entrypoints.cli.main")
OURS = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders"}
STOCK, STOCK_KEY, PLAIN, CLOSED = "stock", "stock, --api-key", "ours", "ours, auth and quotas"
BESIDE = {PLAIN: STOCK, CLOSED: STOCK_KEY}
START_SECONDS = 600


@contextmanager
def server(variables: dict[str, str], *arguments: str) -> Iterator[str]:
    """Run a server; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*VLLM, "serve", str(MODEL), "--served-model-name", "tiny", "--enforce-eager"]
    command += ["--max-model-len", "1024", "--max-num-seqs", "32", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, *arguments],
            env=clean(VLLM_CPU_OMP_THREADS_BIND=str(max(os.sched_getaffinity(0))), **variables),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def clean(**variables: str) -> dict[str, str]:
    """Return the environment without settings of ours or vLLM's, then `variables`."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(("VLINDERS_", "VLLM_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"} | variables


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


def measure(url: str, key: str, requests: int, report: Path) -> float:
    """Return the output tokens a second of a load of `requests`, 32 at a time."""
    subprocess.run(
        [
            *(*VLLM, "bench", "serve", "--backend", "openai", "--base-url", url, "--model", "tiny"),
            *("--tokenizer", str(MODEL), "--dataset-name", "random", "--random-input-len", "64"),
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


def wait_for(url: str) -> None:
    """Wait until a server is healthy."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    sys.exit("a server did not start")


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=200, help="of a server in a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        settings, key = closed(folder)
        state = {"XDG_STATE_HOME": name}
        urls = {
            STOCK: stack.enter_context(server({})),
            PLAIN: stack.enter_context(server(OURS | state)),
            STOCK_KEY: stack.enter_context(server({}, "--api-key", key)),
            CLOSED: stack.enter_context(server(settings | state)),
        }
        for url in urls.values():
            wait_for(url)
        found: dict[str, list[float]] = defaultdict(list)
        for number in range(arguments.rounds + 1):
            for contender, url in urls.items():
                rate = measure(url, key, arguments.requests, folder / "report.json")
                if number:  # the first round warms up
                    found[contender].append(rate)
    for contender, rates in found.items():
        print(
            f"{contender}: {min(rates):.0f} to {max(rates):.0f}, median {median(rates):.0f} tokens a second"
        )
    shares = {
        ours: median(a / b for a, b in zip(found[ours], found[stock], strict=True))
        for ours, stock in BESIDE.items()
    }
    for ours, share in shares.items():
        print(f"{ours}, of {BESIDE[ours]} in the same round: {100 * share:.1f} % (target: 99 %)")
    return 0 if min(shares.values()) >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
