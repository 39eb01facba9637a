"""The servers that the integration tests share, one per configuration, each started once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

# The helpers beside this file; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(Path(__file__).parent))

from collector import VARIABLES as TRACED
from collector import Collector
from server import (
    HERE,
    LORA,
    LORA_NAME,
    MODEL,
    NAME,
    PACED,
    PATCHED,
    RANK_BLOCKS,
    RELEASE,
    ROOT,
    SLOTS,
    STATE,
    Server,
    Servers,
    clean_environment,
    free_port,
    two_ranks,
)

KEY = "key-of-the-integration-tests"
COMMON = (
    *("--max-num-seqs", str(SLOTS)),
    *("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"{LORA_NAME}={LORA}"),
    "--enable-prompt-tokens-details",
    *("--worker-cls", "paced_worker.PacedWorker"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without vLLM or the tiny model nothing here can run: skip, and say what to do."""
    here = Path(__file__).parent
    reason = None
    if find_spec("vllm") is None:
        reason = "vLLM is not installed: make setup"
    elif not (MODEL.is_dir() and LORA.is_dir()):
        reason = "the models are missing: make model"
    for item in items:
        if reason and here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


FAR_KEY = "key-of-the-servers-afar"
FAR = tuple(
    Server(f"far {number}", ("--worker-cls", "paced_worker.PacedWorker"), PACED, key=FAR_KEY)
    for number in (1, 2)
)
"""Two more servers, stock ones, which the router of `scheduled` knows as the replicas of one model."""
ELSEWHERE_URL = f"http://127.0.0.1:{free_port()}"
"""Where a server that is not vLLM may answer for the router of `scheduled`."""
MODELS = {
    NAME: {"capabilities": ["complex_reasoning", "architecture_design"], "cost": 0.03},
    LORA_NAME: {"capabilities": ["simple_chat"], "cost": 0.002, "speed": "fast"},
}
ROUTING = {
    "models": {
        "far": {
            "cost": 0.03,
            "quality": 0.3,
            "fallback": [NAME],
            "upstream": {
                "urls": [server.url for server in FAR],
                "model": NAME,
                "key": "env:TEST_FAR_KEY",
                "health_seconds": 0.2,
                "rest_seconds": 0.2,
                "failures": 1,
            },
        },
        "elsewhere": {
            "cost": 0.03,
            "quality": 0.3,
            "upstream": {"urls": [ELSEWHERE_URL], "model": str(MODEL), "health_seconds": 0.2, "rest_seconds": 0.2},
        },
        **MODELS,
    },
    "routes": [
        {"name": "far", "when": {"prompt": {"contains": "far away"}}, "models": ["far"]},
        {"name": "short", "when": {"prompt": {"contains": "three tokens"}}, "models": [LORA_NAME],
         "parameters": {"max_tokens": 3, "ignore_eos": True}},
    ],
}  # fmt: skip
SCHEDULED = PATCHED | {
    "VLINDERS_ROUTING": json.dumps(ROUTING),
    "TEST_FAR_KEY": FAR_KEY,
    "VLINDERS_LOGGING__REQUESTS": f"{STATE.name}/requests.jsonl",
    "VLINDERS_SCHEDULER__TRUST_TENANT_HEADER": "true",
    "VLINDERS_SCHEDULER__DEADLINE_MS__LOW": "400",
    "VLINDERS_SCHEDULER__TENANTS__LIMITED__MAX_QUEUE": "3",
    "VLINDERS_SCHEDULER__TENANTS__CAPPED__PRIORITY__CAP": "40",
    "VLINDERS_SCHEDULER__TENANTS__CAPPED__PRIORITY__DEFAULT": "20",
}


@pytest.fixture(scope="session")
def collector() -> Collector:
    """Where the server `scheduled` sends its traces."""
    return Collector()


@pytest.fixture(scope="session")
def servers(collector: Collector) -> Iterator[Servers]:
    """All configurations; at most one runs at a time in this process."""
    release = str(ROOT / ".releases" / RELEASE)
    pool = Servers(
        Server("patched", COMMON, PATCHED),
        Server(
            "scheduled",
            (*COMMON, "--enable-log-requests", "--otlp-traces-endpoint", collector.endpoint),
            SCHEDULED | TRACED,
        ),
        Server("stock", COMMON, PACED),
        Server(
            "data_parallel",
            (
                *("--max-num-seqs", "4", "--data-parallel-size", "2", "--enable-prompt-tokens-details"),
                *("--max-model-len", "2048", "--block-size", "32"),
                *("--num-gpu-blocks-override", str(RANK_BLOCKS)),
                *("--worker-cls", "paced_worker.PacedWorker"),
            ),
            {
                **PATCHED,
                **two_ranks(),
                "VLINDERS_SCHEDULER__TRUST_TENANT_HEADER": "true",
                "VLINDERS_SESSIONS__TTL_SECONDS": "100000",  # none expires while tests count them
            },
            key=KEY,
        ),
        Server(
            "release",
            COMMON,
            {
                **PATCHED,
                "PYTHONPATH": os.pathsep.join([release, HERE]),
                "VLINDERS_ROUTING": json.dumps({"models": MODELS}),
            },
        ),
    )
    yield pool
    pool.stop()


@pytest.fixture
def patched(servers: Servers) -> Server:
    """Vanilla flags, LoRA, two slots; the patches are on."""
    return servers.get("patched")


@pytest.fixture
def scheduled(servers: Servers) -> Server:
    """As `patched`, with tenants, limits, deadlines and a router."""
    return servers.get("scheduled")


@pytest.fixture
def data_parallel(servers: Servers) -> Server:
    """Two API servers, two engine cores with `RANK_BLOCKS` KV blocks of 32 tokens each, an API key."""
    return servers.get("data_parallel")


@pytest.fixture(scope="module")
def _far() -> Iterator[None]:
    yield
    for server in FAR:
        server.stop()


@pytest.fixture
def far(servers: Servers, _far: None) -> tuple[Server, ...]:
    """The servers that `scheduled` knows as replicas, all running, and it too."""
    with ThreadPoolExecutor(len(FAR)) as starting:
        started = [starting.submit(server.start) for server in FAR if server.process is None]
        servers.get("scheduled")
    for each in started:
        each.result()
    return FAR


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The address of `transformers serve`, which `scheduled` knows as the upstream of one more model."""
    host, port = ELSEWHERE_URL.removeprefix("http://").split(":")
    program = str(Path(sys.executable).with_name("transformers"))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [program, "serve", str(MODEL), "--device", "cpu", "--host", host, "--port", port],
            env=clean_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield ELSEWHERE_URL
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def older_release() -> Path:
    """The oldest supported release, made as ``make release`` makes it."""
    script = ROOT / "scripts" / "vllm_release.py"
    done = subprocess.run([sys.executable, str(script), RELEASE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return ROOT / ".releases" / RELEASE


@pytest.fixture
def release(servers: Servers, older_release: Path) -> Server:
    """As `patched`, on the oldest supported vLLM."""
    return servers.get("release")


@pytest.fixture(scope="module")
def no_server(servers: Servers) -> None:
    """Leave the cores to what the test runs itself."""
    servers.stop()
