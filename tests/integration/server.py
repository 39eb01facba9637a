"""A real ``vllm serve`` for tests: started on loopback, waited for, stopped with all it started."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from packaging.version import Version

from vllm_vlinders.patching.gate import running_vllm_version

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / ".models" / "tiny"
LORA = ROOT / ".models" / "tiny-lora"
NAME = "tiny"
LORA_NAME = "code"
ELSEWHERE = {"api_server_llm_engine_priority", "api_server_render_pipeline"}
"""Patches of what `vllm serve` does not import of itself: the offline engine, the render server."""
SLOTS = 2
"""How many requests the shared servers run at once."""
RANK_BLOCKS = 128
"""How many KV blocks each rank of the shared server with two has."""
RELEASE = "0.28.0"
"""The oldest supported vLLM."""
START_SECONDS = 600
STOP_SECONDS = 20
STATE = tempfile.TemporaryDirectory(prefix="vlinders-state-")
"""Where the servers keep what outlives them."""
CONTEXT = 16384
"""The longest request of the shared servers, in tokens."""
HERE = str(Path(__file__).parent)
PACED: dict[str, str | None] = {"PYTHONPATH": HERE}
"""With it ``--worker-cls paced_worker.PacedWorker`` is found."""
PATCHED: dict[str, str | None] = PACED | {
    "VLLM_CUSTOM_PATCHES": "vllm_vlinders",
    "VLINDERS_LOGGING__FORMAT": "json",
    # Aging so slow that a difference of one priority outweighs the time that tests take.
    "VLINDERS_SCHEDULER__AGING_SECONDS": "1000000",
}


def clean_environment(**variables: str | None) -> dict[str, str]:
    """Return the environment without settings of vlinders or vLLM, then `variables` (None removes).

    A ``PYTHONPATH`` goes in front of the one that is set: another vLLM may be under test by it.
    """
    ours = ("VLINDERS_", "VLLM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["XDG_STATE_HOME"] = STATE.name
    kept |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # One thread for the worker leaves the other cores to the API server and the client.
    kept["VLLM_CPU_OMP_THREADS_BIND"] = str(core())
    for name, value in variables.items():
        if value is None:
            kept.pop(name, None)
        elif name == "PYTHONPATH":
            kept[name] = os.pathsep.join(filter(None, [value, kept.get(name)]))
        else:
            kept[name] = value
    return kept


def core() -> int:
    """Return the core of this process's servers: each process of pytest-xdist has another one."""
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return cores[number % len(cores)]


_ports = itertools.count(20_000 + os.getpid() * 37 % 11_000)


def free_port() -> int:
    """Return a port of loopback that nobody listens on, another one each time.

    It is none of those that the kernel gives to whoever asks for any: those may be taken before a server starts.
    """
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def two_ranks() -> dict[str, str]:
    """Return the variables with which two ranks share the CPU, one core each."""
    if running_vllm_version() < Version("0.33"):
        return {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    # There each rank wants a NUMA node of its own; of those that vLLM makes up, it chooses the cores itself.
    return {
        "VLLM_CPU_SIM_MULTI_NUMA": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "auto",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }


def serve_command(port: int, *arguments: str, model: Path = MODEL) -> list[str]:
    """Return the command line that serves `model` on `port`."""
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
    command += ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", str(CONTEXT)]
    return [*command, "--host", "127.0.0.1", "--port", str(port), *arguments]


@dataclass
class Server:
    """One server process group.

    Attributes:
        name: names it in failures.
        arguments: what ``vllm serve`` gets beyond model and address.
        variables: environment variables; None removes one.
        key: an API key that the server asks for and `client` sends.
        model: the folder of the model.
        patience: seconds in which it must be healthy.
    """

    name: str
    arguments: tuple[str, ...] = ()
    variables: dict[str, str | None] = field(default_factory=dict)
    key: str | None = None
    model: Path = MODEL
    patience: float = START_SECONDS
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _log: Path | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All that its processes have written so far."""
        if self._log is None:
            return ""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of this server, with its key."""
        return httpx.Client(base_url=self.url, headers=self.credentials(), timeout=600, **options)

    def credentials(self) -> dict[str, str]:
        """Return the headers of a caller who holds the key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def start(self) -> None:
        """Start it and return once it is healthy.

        Raises:
            RuntimeError: it ended or did not become healthy; the message ends with its log.
        """
        with tempfile.NamedTemporaryFile(prefix=f"vllm-{self.name}-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            extra = ("--api-key", self.key) if self.key else ()
            self.process = subprocess.Popen(
                serve_command(self.port, *self.arguments, *extra, model=self.model),
                env=clean_environment(**self.variables),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.patience
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                code = self.process.poll()
                problem = "is not healthy in time" if code is None else f"ended with code {code}"
                tail = self.log[-6000:]
                self.stop()
                raise RuntimeError(f"server {self.name!r} {problem}; its log ends:\n{tail}")
            time.sleep(0.3)

    def stop(self) -> None:
        """Ask it to end, then end what is left of its process group. Idempotent."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _kill_group(process.pid)
                process.wait()
        if self._log is not None:
            self._log.unlink(missing_ok=True)
            self._log = None

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


class Servers:
    """At most one running server in a test process: asking for another stops the one before."""

    def __init__(self, *known: Server) -> None:
        self._known = {server.name: server for server in known}

    def get(self, name: str) -> Server:
        """Return the server of that name, running."""
        server = self._known[name]
        if server.process is None:
            self.stop()
            server.start()
        return server

    def stop(self) -> None:
        """Stop whichever runs."""
        for server in self._known.values():
            server.stop()
