"""Serve a model with the patches on loopback until Ctrl-C, and print a first request to try.

Nothing here is needed to use the package: it only runs ``vllm serve`` with sensible arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

from make_tiny_model import make

BIN = Path(sys.executable).parent
GPU_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # One thread for the worker leaves the other cores to the API server and the client.
    "VLLM_CPU_OMP_THREADS_BIND": str(max(os.sched_getaffinity(0))),
}


def command_line(model: str, port: int, extra: list[str]) -> tuple[list[str], dict[str, str], str]:
    """Return the command, its environment and the name under which the model is served."""
    environment = {"VLLM_CUSTOM_PATCHES": "vllm_vlinders"} | os.environ
    command = [str(BIN / "vllm"), "serve"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    cpu = "+cpu" in version("vllm")
    if cpu:
        environment = CPU_ENVIRONMENT | environment
    if model != "demo" or not cpu:
        name = GPU_MODEL if model == "demo" else model
        return [*command, name, *address, *extra], environment, name
    folder, _ = make()
    demo = ["--served-model-name", "tiny", "--enforce-eager", "--max-model-len", "2048"]
    environment["HF_HUB_OFFLINE"] = "1"
    return [*command, str(folder), *demo, *address, *extra], environment, "tiny"


def announce(server: subprocess.Popen[bytes], port: int, name: str) -> None:
    """Wait until the server is healthy, then print what to try."""
    while server.poll() is None:
        time.sleep(0.5)
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2),
        ):
            break
    else:
        return
    print(
        f"""
Ready. Try, in another terminal (Ctrl-C here stops the server):

  curl http://127.0.0.1:{port}/v1/chat/completions \\
    -H 'Content-Type: application/json' -H 'X-Vlinders-Priority: 90' \\
    -d '{{"model": "{name}", "max_tokens": 16,
         "messages": [{{"role": "user", "content": "Hello"}}]}}'
""",
        flush=True,
    )


def main() -> int:
    """Run the server in the foreground until it ends or is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("extra", nargs="*", help="arguments for vllm serve, after --")
    arguments = parser.parse_args()
    command, environment, name = command_line(arguments.model, arguments.port, arguments.extra)
    print("$ VLLM_CUSTOM_PATCHES=" + environment["VLLM_CUSTOM_PATCHES"], *command, flush=True)
    # A session of its own: the server hears of a Ctrl-C once, from here, and stops cleanly.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    threading.Thread(target=announce, args=(server, arguments.port, name), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.send_signal(signal.SIGINT)
        server.wait()
        return 0


if __name__ == "__main__":
    sys.exit(main())
