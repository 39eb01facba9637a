"""Step 6: the state of each patch in each process, reported where people look.

A process writes its report to one small file in the run directory, which the first process of the
server makes and passes on in ``VLINDERS_RUN_DIR``; what its patches have to tell beyond that, which
changes often, to one more for each subject. Whoever answers ``/vlinders/status`` reads them all.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

RUN_DIR = "VLINDERS_RUN_DIR"
Role = Literal["main", "api_server", "engine_core", "worker", "other"]
_ROLES: tuple[tuple[str, Role], ...] = (
    ("ApiServer", "api_server"),
    ("APIServer", "api_server"),
    ("EngineCore", "engine_core"),
    ("VllmWorker", "worker"),
    ("Worker", "worker"),
    ("VLLM_DP_Coordinator", "other"),
    ("DPCoordinator", "other"),
)
_ACTS_IN: dict[Role, frozenset[str]] = {
    "main": frozenset({"api_server", "engine_core", "worker", "any"}),
    "api_server": frozenset({"api_server", "any"}),
    "engine_core": frozenset({"engine_core", "worker", "any"}),
    "worker": frozenset({"worker", "any"}),
    "other": frozenset({"any"}),
}


class State(StrEnum):
    """Where a patch is in its life, in one process."""

    APPLIED = "applied"
    WAITING = "waiting"
    OTHER_PROCESS = "other_process"
    NOT_NEEDED = "not_needed"
    NOT_FOR_VERSION = "not_for_version"
    DRIFTED = "drifted"
    FAILED = "failed"
    OFF = "off"


@dataclass(slots=True)
class PatchReport:
    """The state of one patch in this process; `detail` says why, or what was found."""

    patch: str
    feature: str
    module: str
    target: str | None
    required: bool
    state: State
    detail: str = ""


@dataclass(slots=True)
class ProcessReport:
    """The patches of one process.

    `started` tells a reused pid from the one that reported.
    """

    pid: int
    name: str
    role: Role
    vllm: str
    started: str = ""
    patches: list[PatchReport] = field(default_factory=list)

    def publish(self) -> None:
        """Write the report for the other processes of this server to read."""
        _write(f"{self.pid}.json", asdict(self))

    def publish_facts(self, subject: str, facts: dict[str, Any]) -> None:
        """Write what patches have to tell of a subject."""
        _write(f"{self.pid}.{self.started}.{subject}.facts", facts)

    def acts_here(self, process: str) -> bool:
        """Tell whether a patch for `process` has anything to do in this one."""
        return process in _ACTS_IN[self.role]


def _write(name: str, content: dict[str, Any]) -> None:
    """Write a file of the run directory, atomically."""
    folder = os.environ.get(RUN_DIR)
    if not folder:
        return
    draft = Path(folder) / f"{name}.tmp"
    try:
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(draft.with_suffix(""))
    except OSError:
        return  # the run directory is gone: the server is ending


def this_process(vllm: str) -> ProcessReport:
    """Return an empty report for the running process."""
    pid, name = os.getpid(), multiprocessing.current_process().name
    return ProcessReport(pid, name, role_of(name), vllm, started=_start_time(pid))


def role_of(process_name: str) -> Role:
    """Return the role that vLLM gives a process of this `multiprocessing` name.

    A name that is not vLLM's may be a server's or an ``LLM``'s own process: it is "main", where every
    patch may act.
    """
    for prefix, role in _ROLES:
        if process_name.startswith(prefix):
            return role
    return "main"


def ensure_run_dir() -> None:
    """Make the server's run directory unless a parent process has, and remove it at its maker's exit."""
    if os.environ.get(RUN_DIR):
        return
    try:
        folder, maker = tempfile.mkdtemp(prefix="vlinders-"), os.getpid()
    except OSError:
        return  # nowhere to write: the server runs, and its status knows this process alone
    os.environ[RUN_DIR] = folder

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def read_reports() -> list[dict[str, Any]]:
    """Return the reports of all living processes of this server, by pid."""
    folder = os.environ.get(RUN_DIR)
    reports = []
    for path in sorted(Path(folder).glob("*.json")) if folder else ():
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if _start_time(report["pid"]) == report["started"]:
                reports.append(report | {"facts": _facts(path.parent, report)})
        except (OSError, ValueError):
            continue  # being replaced, or removed at this moment
    return sorted(reports, key=lambda report: int(report["pid"]))


def _facts(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Return what the patches of a process have to tell, by subject."""
    start = f"{report['pid']}.{report['started']}."
    return {
        path.stem.removeprefix(start): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob(f"{start}*.facts"))
    }


def _start_time(pid: int) -> str:
    """Return what tells two processes of the same pid apart; "gone" if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "gone" if Path("/proc/self").exists() else _alive_without_proc(pid)
    except OSError:
        return "gone"
    state, *fields = stat.rpartition(")")[2].split()
    return "gone" if state == "Z" else fields[18]


def _alive_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except OSError:
        return "gone"
    return ""
