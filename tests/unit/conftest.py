from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllm_vlinders.logs import the_level
from vllm_vlinders.settings import active_settings


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write importable packages into a folder of this test's own; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(**sources: str) -> Path:
        for name, source in sources.items():
            path = tmp_path.joinpath(*name.split("__"))
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.relative_to(tmp_path).parents:
                if folder != Path():
                    (tmp_path / folder / "__init__.py").touch()
            path.with_suffix(".py").write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if hasattr(sys.modules[name], "__file__") and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings of another, nor of the machine."""
    for name in ("VLINDERS_CONFIG", "VLINDERS_ON_DRIFT", "VLINDERS_RUN_DIR", "VLLM_CUSTOM_PATCHES"):
        monkeypatch.delenv(name, raising=False)
    active_settings.cache_clear()
    the_level.cache_clear()
    yield
    active_settings.cache_clear()
    the_level.cache_clear()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL of this session's own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found or (os.getuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    as_owner: list[str] = []
    # Not under pytest's own folder: every pytest that starts takes that from other users again.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        if os.getuid() == 0:  # it refuses to run as root
            as_owner = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")
        data = folder / "data"
        init = [
            *as_owner,
            str(found[-1] / "initdb"),
            "-D",
            str(data),
            "-A",
            "trust",
            "-U",
            "vlinders",
            "--no-sync",
        ]
        subprocess.run(init, check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -p {port} -F"
        control = [*as_owner, str(found[-1] / "pg_ctl"), "-D", str(data), "-w"]
        subprocess.run(
            [*control, "-l", str(folder / "log"), "-o", options, "start"], check=True, capture_output=True
        )
        yield f"postgresql+psycopg://vlinders@127.0.0.1:{port}/postgres"
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True)
