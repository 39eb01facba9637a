"""``vlinders doctor``: what keeps this environment from serving with the patches, and the fix."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from typing import Any

from vllm_vlinders import SUPPORTED_VLLM, __version__
from vllm_vlinders.cli.output import print_json, print_table
from vllm_vlinders.cli.patches import DEFAULT_SELECTION, is_problem, judge_selection
from vllm_vlinders.errors import StartupError
from vllm_vlinders.patching.declare import contains
from vllm_vlinders.patching.discover import discover
from vllm_vlinders.patching.front_end import check_front_end
from vllm_vlinders.patching.gate import running_vllm_version
from vllm_vlinders.settings import load_settings, reveal

_COLUMNS = ("check", "result", "found", "fix")
_PLUGIN = "vlinders"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found and, if that is a problem, how to mend it."""

    check: str
    found: str
    fix: str = ""

    @property
    def result(self) -> str:
        """``ok`` or ``problem``."""
        return "problem" if self.fix else "ok"


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser("doctor", help="check this environment, with a fix for each problem")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print all findings; 1 if any is a problem."""
    findings = list(examine())
    rows = [{**asdict(finding), "result": finding.result} for finding in findings]
    if arguments.json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS)
    return 1 if any(finding.fix for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """Yield the findings on this environment, in the order in which they matter."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    gpu = "NVIDIA GPU" if shutil.which("nvidia-smi") else "no NVIDIA GPU (CPU build of vLLM)"
    yield Finding("platform", f"{system}, {gpu}")
    yield Finding("vllm-vlinders", __version__)
    yield _guarded("vLLM", _vllm, "install a vLLM of the supported range: pip install 'vllm-vlinders[vllm]'")
    yield _plugin()
    yield _selection()
    yield _guarded("settings", _settings, "correct the key named here; `vlinders config schema` lists all")
    yield _guarded("auth", _auth, "correct what it names; docs/auth.md walks through it")
    yield _guarded("patches", _patches, "see `vlinders patches` for each patch")
    yield _guarded("front end", _front_end, "use vLLM's Python API server")


def _guarded(check: str, examine_one: Callable[[], Finding], fix: str) -> Finding:
    try:
        return examine_one()
    except StartupError as error:
        return Finding(check, str(error), fix)


def _vllm() -> Finding:
    version = running_vllm_version()
    if contains(SUPPORTED_VLLM, version):
        return Finding("vLLM", str(version))
    return Finding("vLLM", str(version), f"install a vLLM of {SUPPORTED_VLLM}")


def _plugin() -> Finding:
    installed = {point.name for point in entry_points(group="vllm.general_plugins")}
    if _PLUGIN not in installed:
        fix = f"install it into the environment of vLLM: {sys.executable} -m pip install vllm-vlinders"
        return Finding("plugin", "vLLM does not see the plugin", fix)
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and _PLUGIN not in allowed.split(","):
        return Finding("plugin", f"VLLM_PLUGINS={allowed} leaves it out", f"add {_PLUGIN} to VLLM_PLUGINS")
    return Finding("plugin", "vLLM loads it")


def _selection() -> Finding:
    selection = os.environ.get("VLLM_CUSTOM_PATCHES", "")
    if selection.strip():
        return Finding("VLLM_CUSTOM_PATCHES", selection)
    with contextlib.suppress(StartupError):  # settings that are wrong are the next finding
        if load_settings().auth is not None:
            found = "not set, and the settings have a section auth: the server would be open"
            return Finding("VLLM_CUSTOM_PATCHES", found, f"set it to {DEFAULT_SELECTION}")
    return Finding("VLLM_CUSTOM_PATCHES", f"not set: vLLM stays as it is; set it to {DEFAULT_SELECTION}")


def _settings() -> Finding:
    load_settings()
    return Finding("settings", os.environ.get("VLINDERS_CONFIG") or "defaults and environment")


def _auth() -> Finding:
    auth = load_settings().auth
    if auth is None:
        return Finding("auth", "no section auth: the server is as open as stock vLLM")
    if auth.keys is None:
        return Finding("auth", "closed; API keys are not kept here")
    from vllm_vlinders.auth.keys import Pepper
    from vllm_vlinders.auth.store import open_store

    Pepper(reveal(auth.keys.pepper, "auth.keys.pepper"))
    store = open_store(auth.keys)
    known = sum(1 for _ in store.all())
    store.close()
    # Not a problem: nobody gets in, and keys can be made beside the running server.
    first = "" if known else "; `vlinders keys create` makes the first"
    return Finding("auth", f"closed; {known} API keys{first}")


def _patches() -> Finding:
    rows = judge_selection(os.environ.get("VLLM_CUSTOM_PATCHES") or DEFAULT_SELECTION)
    bad = [f"{row['patch']} {row['fit']}: {row['detail']}" for row in rows if is_problem(row)]
    if bad:
        fix = "install an unmodified vLLM of the supported range, or a newer vllm-vlinders"
        return Finding("patches", "; ".join(bad), fix)
    return Finding("patches", f"{len(rows)} selected, none in trouble")


def _front_end() -> Finding:
    check_front_end(discover(os.environ.get("VLLM_CUSTOM_PATCHES") or DEFAULT_SELECTION))
    return Finding("front end", "Python API server")
