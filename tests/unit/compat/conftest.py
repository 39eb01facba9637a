"""A package index of this machine's own: a real HTTP server with real archives."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# The made-up releases beside this file; pytest's importlib mode leaves the path alone.
sys.path.insert(0, str(Path(__file__).parent))

from made_up import PATCHES, Index, package, write_package
from vllm_vlinders.patching.discover import PatchClass, discover
from vllm_vlinders.patching.table import record, table_path, write_table


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index, and a pip that is configured for it alone; the caches are this test's own."""
    known = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = known.answer(self.path, self.headers.get("Range", ""))
            if known.login and self.headers.get("Authorization") != known.login:
                status, headers, body = 401, {}, b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            known.sent += len(body)

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        known.url = f"http://127.0.0.1:{server.server_port}/simple"
        only_index(monkeypatch, known.url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield known
        known.go.set()
        server.shutdown()


def only_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Configure pip for one index and nothing else."""
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", url)


@pytest.fixture
def acme(make_package: Callable[..., Path], tmp_path: Path) -> list[PatchClass]:
    """A company's patches, recorded for the made-up vLLM 0.30.0."""
    make_package(acme_compat=PATCHES)
    patches = discover("acme_compat")
    recorded = write_package(tmp_path / "recorded", package())
    table, missing = record(patches, {"0.30.0": recorded})
    assert missing == []
    write_table(table_path(patches[0]), table)
    for patch in patches:
        patch.fingerprints = table
    return patches
