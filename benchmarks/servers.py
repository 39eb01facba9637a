"""Whole servers for the benchmarks: `vllm serve` on a free port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

VLLM = (sys.executable, "-m", "vllm.entrypoints.cli.main")
_START_SECONDS = 600


@contextmanager
def server(model: Path, variables: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """Start a server of a model, named ``tiny``; yield its address, and end it with the block.

    `wait_for` waits until it answers, so that several can start at the same time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*VLLM, "serve", str(model), "--served-model-name", "tiny", "--enforce-eager"]
    command += ["--max-model-len", "1024", "--host", "127.0.0.1", "--port", str(port), *arguments]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=dict(variables), stdout=log, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def clean(**variables: str) -> dict[str, str]:
    """Return the environment without settings of ours or vLLM's, then `variables`."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(("VLINDERS_", "VLLM_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"} | variables


def wait_for(url: str) -> None:
    """Wait until a server is healthy; end the benchmark if it does not become so."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    sys.exit("a server did not start")
