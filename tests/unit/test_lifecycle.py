from __future__ import annotations

import importlib.machinery
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from vllm_vlinders.errors import DriftError, FrontEndError, UnsupportedVersionError
from vllm_vlinders.patching import front_end, report
from vllm_vlinders.patching.fingerprint import SourceTree
from vllm_vlinders.patching.lifecycle import Lifecycle
from vllm_vlinders.settings import Settings

ENGINE = "class Engine:\n    def step(self):\n        return 'stock'\n"
PATCHES = """
    from vllm_vlinders.patching import VLLMPatch, load_fingerprints

    SUPPORTED_VLLM = ">=0.28"

    class Step(VLLMPatch):
        name = "step"
        feature = "core"
        target = "acme_engine:Engine"
        versions = ">=0.28,<0.34"
        why = upstream = remove_when = "said"
        fingerprints = {"0.28.0": {"acme_engine:Engine.step": "FINGERPRINT"}}

        def step(self):
            return "patched " + Step.original.step(self)

    def register_patches():
        return [Step]
"""
Start = Callable[..., Lifecycle]


@pytest.fixture
def start(make_package: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    make_package(acme_engine=ENGINE)
    good = SourceTree(tmp_path).fingerprint("acme_engine:Engine.step")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(report.RUN_DIR, str(tmp_path / "run"))

    def run(version: str = "0.30.0", drifted: bool = False, **changes: Any) -> Lifecycle:
        text = PATCHES.replace("FINGERPRINT", "0" * 16 if drifted else str(good))
        if changes.pop("optional", False):
            text = text.replace('name = "step"', 'name = "step"\n        required = False')
        for old, new in changes.pop("replace", {}).items():
            text = text.replace(old, new)
        make_package(acme_step=text)
        lifecycle = Lifecycle("acme_step", Settings.model_validate(changes), Version(version))
        lifecycle.start()
        return lifecycle

    return run


def states(lifecycle: Lifecycle) -> dict[str, str]:
    return {entry.patch: entry.state.value for entry in lifecycle.process.patches}


def step() -> str:
    import acme_engine

    result: str = acme_engine.Engine().step()
    return result


def test_a_patch_waits_is_applied_and_can_be_undone(start: Start, capfd: Any) -> None:
    lifecycle = start(logging={"format": "json"})
    assert states(lifecycle) == {"step": "waiting"}
    assert step() == "patched stock"
    assert states(lifecycle) == {"step": "applied"}
    assert lifecycle.undo("step")
    assert step() == "stock"
    assert states(lifecycle) == {"step": "off"}
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["patch"], line["state"], line["pid"]) for line in lines] == [
        ("step", "applied", os.getpid()),
        ("step", "off", os.getpid()),
    ]


def test_reports_can_be_read_by_the_other_processes(start: Start) -> None:
    start()
    step()
    (own,) = report.read_reports()
    assert own["pid"] == os.getpid()
    assert own["role"] == "main"
    assert own["patches"][0]["state"] == "applied"


def test_a_forked_child_reports_as_itself(start: Start) -> None:
    lifecycle = start()
    step()

    def child(queue: Any) -> None:
        lifecycle.after_fork()
        queue.put((report.read_reports(), step()))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,), name="EngineCore_DP0")
    process.start()
    reports, result = queue.get(timeout=30)
    process.join()
    assert result == "patched stock"
    assert {entry["role"] for entry in reports} == {"main", "engine_core"}
    assert [entry["role"] for entry in report.read_reports()] == ["main"]


def test_drift_of_a_required_patch_refuses_and_says_what_to_do(start: Start) -> None:
    with pytest.raises(DriftError) as caught:
        start(drifted=True)
    for part in (
        "step has drifted",
        "acme_engine:Engine.step differs",
        "VLINDERS_ON_DRIFT=warn",
        "a recorded release (0.28.0)",
    ):
        assert part in str(caught.value)


def test_drift_of_an_optional_patch_skips_it(start: Start) -> None:
    assert states(start(drifted=True, optional=True)) == {"step": "drifted"}
    assert step() == "stock"


def test_drift_can_be_accepted_with_a_warning(start: Start, capfd: Any) -> None:
    start(drifted=True, patches={"on_drift": "warn"})
    assert step() == "patched stock"
    assert "drifted: acme_engine:Engine.step differs" in capfd.readouterr().err


GUARDING = {'feature = "core"': 'feature = "auth"\n        guards_access = True'}


def test_a_required_patch_can_be_skipped(start: Start) -> None:
    assert states(start(drifted=True, patches={"on_drift": "skip"})) == {"step": "drifted"}


def test_a_guard_is_not_skipped(start: Start) -> None:
    with pytest.raises(DriftError, match="VLINDERS_ON_DRIFT=skip does not: it guards access"):
        start(drifted=True, patches={"on_drift": "skip"}, replace=GUARDING)


def test_settings_that_ask_for_a_guard_refuse_a_selection_without_one(start: Start) -> None:
    with pytest.raises(FrontEndError, match="the server would be open"):
        start(auth={})


def test_settings_that_ask_for_a_guard_start_with_one(start: Start) -> None:
    start(auth={}, replace=GUARDING)
    assert step() == "patched stock"


def test_an_unsupported_vllm_is_refused(start: Start) -> None:
    with pytest.raises(UnsupportedVersionError, match=r"acme_step supports vLLM >=0\.28, installed is 0\.20"):
        start("0.20.0")
    with pytest.raises(UnsupportedVersionError, match="required patch step .*written for vLLM"):
        start("0.40.0")


def test_an_optional_patch_out_of_range_is_left_out(start: Start) -> None:
    assert states(start("0.40.0", optional=True)) == {"step": "not_for_version"}
    assert step() == "stock"


def test_front_ends_beyond_reach_are_refused_where_requests_are_patched(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_server = {'feature = "core"': 'feature = "core"\n        process = "api_server"'}
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "0")
    start(replace=api_server)
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(FrontEndError, match="VLLM_USE_RUST_FRONTEND is set.*passing step.*unset"):
        start(replace=api_server)


@pytest.mark.parametrize("module", ["vllm.entrypoints.grpc_server", "vllm.entrypoints.launchers.grpc_server"])
def test_the_grpc_server_is_refused_when_it_is_imported(
    start: Start, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    hooks: dict[str, Callable[[], None]] = {}
    monkeypatch.setattr(front_end, "when_imported", lambda place, action: hooks.update({place: action}))
    start(replace={'feature = "core"': 'feature = "core"\n        process = "api_server"'})
    with pytest.raises(SystemExit, match="the gRPC server is asked for.*passing step.*serve without --grpc"):
        hooks[module]()


def test_a_target_that_runs_as_main_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["__main__"], "__spec__", importlib.machinery.ModuleSpec("acme_engine", None)
    )
    with pytest.raises(FrontEndError, match="acme_engine runs as python -m.*use `vllm serve`"):
        start()


def test_a_refusal_in_a_thread_ends_the_whole_process() -> None:
    code = (
        "import threading, time; from vllm_vlinders.patching.front_end import exit_refusing;"
        "from vllm_vlinders.errors import ApplyError;"
        "threading.Thread(target=exit_refusing, args=(ApplyError('thing'),)).start(); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert done.stderr == "vllm-vlinders: refusing to start: thing\n"


def test_a_required_patch_that_cannot_be_applied_ends_the_process(start: Start) -> None:
    lifecycle = start(
        replace={
            "def step(self):\n            return": "@staticmethod\n        def step():\n            return"
        }
    )
    with pytest.raises(SystemExit, match="refusing to start: patch step replaces 'step' as a staticmethod"):
        step()
    assert states(lifecycle) == {"step": "failed"}


def test_without_the_variable_the_plugin_imports_and_does_nothing() -> None:
    code = (
        "import sys; from vllm_vlinders.plugin import register; before = set(sys.modules); register();"
        "print(sorted(set(sys.modules) - before), sorted(m for m in sys.modules if m.startswith('vllm')))"
    )
    environ = {key: value for key, value in os.environ.items() if key != "VLLM_CUSTOM_PATCHES"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert done.stdout.strip() == "[] ['vllm_vlinders', 'vllm_vlinders._version', 'vllm_vlinders.plugin']"
