"""A real nginx for tests, with the configuration that is shipped: only addresses and the log differ."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from server import ROOT, free_port

SHIPPED = ROOT / "docker" / "nginx" / "vlinders.conf"
PATIENCE_SECONDS = 60
MAIN = """
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 2;
daemon off;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/vlinders.conf;
}}
"""


def available() -> bool:
    """Tell whether nginx is installed."""
    return shutil.which("nginx") is not None


def with_addresses(text: str, port: int, upstreams: Sequence[str], log: Path) -> str:
    """Return the shipped configuration with another port, other servers and another access log."""
    text, lines = re.subn(r"(?m)^( +)server vllm:8000 (.*)$", lambda m: _servers(m, upstreams), text)
    assert lines == 1
    text, listens = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", text)
    assert listens == 1
    text, logs = re.subn(r"access_log /dev/stdout", f"access_log {log}", text)
    assert logs == 1
    return text


def _servers(found: re.Match[str], upstreams: Sequence[str]) -> str:
    return "\n".join(f"{found[1]}server {address} {found[2]}" for address in upstreams)


class Nginx:
    """nginx in front of `upstreams`, in a folder of its own."""

    def __init__(self, folder: Path, upstreams: Sequence[str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        user = "" if os.geteuid() else "user root;"  # its folders are the test's
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user), encoding="utf-8")
        self.configure(upstreams)

    def configure(self, upstreams: Sequence[str]) -> None:
        """Write the configuration for these servers."""
        shipped = SHIPPED.read_text(encoding="utf-8")
        text = with_addresses(shipped, self.port, upstreams, self.folder / "access.log")
        (self.folder / "vlinders.conf").write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of nginx with this configuration."""
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), *arguments]

    def reload(self) -> None:
        """Ask for the configuration to be read again, and wait until new workers serve."""
        before = self.error_log.count("start worker process ")
        subprocess.run(self.command("-s", "reload"), check=True, capture_output=True)
        self._until(lambda: self.error_log.count("start worker process ") >= before + 2)

    def until_replaced(self) -> None:
        """Wait until the workers from before the last reload have ended: only then all requests meet the new ones.

        A request that one of them still serves keeps it.
        """
        self._until(lambda: self.error_log.count(" exited with code 0") >= 2)

    @property
    def error_log(self) -> str:
        """What it wrote of itself."""
        return (self.folder / "error.log").read_text(encoding="utf-8")

    @property
    def access_log(self) -> str:
        """The lines of the requests."""
        return (self.folder / "access.log").read_text(encoding="utf-8")

    def until_logged(self, line: str) -> None:
        """Wait until the access log holds `line`: it is written after the answer."""
        self._until(lambda: line in self.access_log)

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, self.error_log[-3000:]
            time.sleep(0.05)

    @contextmanager
    def running(self) -> Iterator[Nginx]:
        """Run it for as long as the block lasts."""
        process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._until(lambda: process.poll() is not None or self._answers())
            assert process.poll() is None, self.error_log[-3000:]
            yield self
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/metrics", timeout=5).status_code == httpx.codes.NOT_FOUND
        except httpx.HTTPError:
            return False
