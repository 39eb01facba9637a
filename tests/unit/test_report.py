from __future__ import annotations

import os
import tempfile
from typing import NoReturn

import pytest

from vllm_vlinders.patching import report


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("MainProcess", "main"),
        ("ApiServer_0", "api_server"),
        ("EngineCore_DP1", "engine_core"),
        ("VllmWorker-0", "worker"),
        ("VLLM_DP_Coordinator", "other"),
        ("SpawnProcess-1", "main"),
        ("MyServer", "main"),
    ],
)
def test_a_process_whose_name_is_not_vllms_is_one_where_every_patch_may_act(name: str, role: str) -> None:
    assert report.role_of(name) == role


def test_the_server_runs_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> NoReturn:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    report.ensure_run_dir()
    assert report.RUN_DIR not in os.environ
    report.this_process("0.32.0").publish()
    assert report.read_reports() == []
