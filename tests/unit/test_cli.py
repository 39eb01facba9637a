from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_vlinders.cli import main
from vllm_vlinders.patching.table import TABLE_FILE


def test_usage_errors_exit_with_2() -> None:
    for arguments in ([], ["fly"], ["config"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_config_show_check_and_schema(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("VLINDERS_SCHEDULER__BODY_PRIORITY", "vllm")
    assert main(["config", "check"]) == 0
    capsys.readouterr()
    assert main(["config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scheduler"]["body_priority"] == "vllm"
    assert main(["config", "show"]) == 0
    assert "body_priority: vllm" in capsys.readouterr().out
    assert main(["config", "schema"]) == 0
    assert "scheduler" in json.loads(capsys.readouterr().out)["properties"]


def test_an_invalid_setting_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("VLINDERS_LOGGING__LEVEL", "shout")
    assert main(["config", "check"]) == 1
    assert "logging.level (from VLINDERS_LOGGING__LEVEL)" in capsys.readouterr().err


def test_record_refuses_what_is_no_release(tmp_path: Path, capsys: Any) -> None:
    for source, expected in (
        ("newest=x", "write VERSION or VERSION=FOLDER"),
        (f"0.32.0={tmp_path}", "no folder 'vllm'"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["patches", "record", source])
        assert caught.value.code == 2
        assert expected in capsys.readouterr().err


def test_record_writes_the_table_and_tells_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "vllm").mkdir()
    output = tmp_path / TABLE_FILE
    assert main(["patches", "record", f"0.32.0={tmp_path}", "--output", str(output)]) == 1
    assert "vLLM 0.32.0 has no vllm.v1.core.sched.scheduler:Scheduler.schedule" in capsys.readouterr().out
    assert json.loads(output.read_text()) == {"0.32.0": {}}


def test_doctor_gives_a_fix_for_each_problem(tmp_path: Path) -> None:
    """In an environment whose vLLM is too old, whose selection is wrong, whose plugin list leaves us out."""
    metadata = tmp_path / "vllm-0.20.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.0\n")
    environ = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "VLLM_CUSTOM_PATCHES": "vllm_vlinders:speed",
        "VLLM_PLUGINS": "others",
    }
    command = [sys.executable, "-m", "vllm_vlinders.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 1, done.stderr
    problems = {row["check"]: row for row in json.loads(done.stdout) if row["result"] == "problem"}
    assert set(problems) >= {"vLLM", "plugin", "patches"}
    assert all(row["fix"] for row in problems.values())
    assert "0.20.0" in problems["vLLM"]["found"]
    assert "has no feature 'speed'" in problems["patches"]["found"]


def test_route_knows_what_a_role_may_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLINDERS_ROUTING__MODELS", "{tiny: {cost: 1}, code: {cost: 5}}")
    monkeypatch.setenv("VLINDERS_AUTH__ROLES__INTERN__MODELS", "[code]")
    for role, model in ((["--role", "intern"], "code"), (["--role", "user"], "tiny"), ([], "tiny")):
        assert main(["route", "What is the capital of France?", "--json", *role]) == 0
        assert json.loads(capsys.readouterr().out)[0]["model"] == model
    assert main(["route", "x", "--role", "boss"]) == 1
    assert "--role: there is no role 'boss'; there are admin, intern" in capsys.readouterr().err


def test_route_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["route", "x"]) == 1
    assert "routing: this section is not set" in capsys.readouterr().err
    monkeypatch.setenv("VLINDERS_ROUTING__MODELS__BIG__COST", "1")
    assert main(["route", "x", "--requirements", "quality=best"]) == 2
    assert "quality may be low, medium, high" in capsys.readouterr().err
    assert main(["route", "x", "--requirements", "model=other"]) == 1
    assert "no model 'other' to choose" in capsys.readouterr().err
    assert main(["route", "x", "--explain"]) == 0
    assert "score of simple_qa" in capsys.readouterr().out
    monkeypatch.setenv("VLINDERS_ROUTING__DEFAULT", "big")
    assert main(["config", "check"]) == 0
    monkeypatch.setenv("VLINDERS_ROUTING__ROUTES", "[{name: r, when: {turn: 1}}]")
    assert main(["config", "check"]) == 1
    assert "routing.routes.0.when.turn: no signal is named 'turn'" in capsys.readouterr().err
    monkeypatch.setenv("VLINDERS_ROUTING__MODELS__BIG__UPSTREAM__URLS", "['http://user:hidden@x']")
    assert main(["config", "check"]) == 1
    printed = capsys.readouterr().err
    assert "this URL carries a password" in printed
    assert "hidden" not in printed


def test_doctor_sees_a_server_that_would_be_open_in_spite_of_its_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLINDERS_AUTH__OPEN_PATHS", "[/health]")
    monkeypatch.setenv("VLLM_CUSTOM_PATCHES", "")

    main(["doctor", "--json"])

    (found,) = (row for row in json.loads(capsys.readouterr().out) if row["check"] == "VLLM_CUSTOM_PATCHES")
    assert (found["result"], found["fix"]) == ("problem", "set it to vllm_vlinders")
