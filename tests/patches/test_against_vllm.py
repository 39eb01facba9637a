"""The patches against the vLLM that is installed: none may have drifted, all must take."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from vllm_vlinders import SUPPORTED_VLLM
from vllm_vlinders.patches import PATCHES
from vllm_vlinders.patches.base import FINGERPRINTS
from vllm_vlinders.patching.declare import contains
from vllm_vlinders.patching.fingerprint import SourceTree
from vllm_vlinders.patching.gate import compare, running_vllm_version

APPLY = """
import importlib, json, os
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm_vlinders.patching.lifecycle import start
lifecycle = start(os.environ["VLLM_CUSTOM_PATCHES"])
reports = {report.patch: report for report in lifecycle.process.patches}
for report in reports.values():
    if report.state == "waiting":
        importlib.import_module(report.target.partition(":")[0])
print(json.dumps({name: report.state for name, report in reports.items()}))
print(json.dumps({name: lifecycle.undo(name) for name in reversed(list(lifecycle.applications))}))
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    base = {key: value for key, value in os.environ.items() if not key.startswith("VLINDERS_")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**base, **environ}, timeout=250
    )


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_nothing_a_patch_replaces_or_relies_on_has_drifted(patch: Any) -> None:
    assert compare(patch, running_vllm_version(), SourceTree()) == []


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_every_recorded_release_has_all_surfaces(patch: Any) -> None:
    for release, table in FINGERPRINTS.items():
        assert contains(SUPPORTED_VLLM, Version(release))
        assert set(patch.surfaces(Version(release))) <= set(table)


def test_all_patches_apply_and_can_be_undone() -> None:
    done = run(APPLY, VLLM_CUSTOM_PATCHES="vllm_vlinders")
    assert done.returncode == 0, done.stderr
    states, undone = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    version = running_vllm_version()
    expected = {p.name: "applied" if p.target_for(version) else "not_needed" for p in PATCHES}
    assert states == expected
    assert all(undone.values())


def test_without_the_variable_vllm_is_untouched() -> None:
    code = (
        "import os; os.environ.pop('VLLM_CUSTOM_PATCHES', None);"
        "from vllm.plugins import load_general_plugins; load_general_plugins();"
        "import sys; from vllm.v1.core.sched import scheduler as s;"
        "print(s.create_request_queue.__module__, s.Scheduler.schedule.__code__.co_name,"
        "sorted(m for m in sys.modules if m.startswith('vllm_vlinders')))"
    )
    done = run(code)
    assert done.stdout.splitlines()[-1] == (
        "vllm.v1.core.sched.request_queue schedule "
        "['vllm_vlinders', 'vllm_vlinders._version', 'vllm_vlinders.plugin']"
    ), done.stderr


def test_the_requests_of_beam_search_are_known_by_their_ids() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    vllm = Path(spec.origin).parent
    source = (vllm / "entrypoints/generate/beam_search/online.py").read_text(encoding="utf-8")
    for line in ('_batch = f"{request_id}-{random_uuid()}"', '_item = f"{request_id_batch}-beam-{i}"'):
        assert line in source
    assert ":016x}" in (vllm / "utils/__init__.py").read_text(encoding="utf-8")


def test_one_feature_can_be_chosen() -> None:
    done = run(APPLY, VLLM_CUSTOM_PATCHES="vllm_vlinders:core")
    version = running_vllm_version()
    render = "applied" if version >= Version("0.29") else "not_needed"
    counting = ("api_server_input_processor_door", "api_server_output_processor_meter")
    expected = {"api_server_app_pipeline": "applied", "api_server_render_pipeline": render}
    expected |= dict.fromkeys(counting, "applied")
    expected |= dict.fromkeys(("api_server_async_llm_drain", "api_server_models_list"), "applied")
    assert json.loads(done.stdout.splitlines()[-2]) == expected, done.stderr
