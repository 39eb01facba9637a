"""The command, end to end, against a real index of made-up releases: output and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from made_up import BASE, QUEUE, SCHEDULE, Index, package, wheel_of, write_package
from vllm_vlinders.cli import main
from vllm_vlinders.compat.results import Level, read_results, write_results
from vllm_vlinders.compat.runs import Run, Suite

DRIFTED = BASE.replace("budget <= 0", "budget < 0")

pytestmark = pytest.mark.usefixtures("acme")


@pytest.fixture
def releases(index: Index) -> Index:
    """0.30.0 fits, in 0.31.0 a required patch has drifted, 0.32.0 is as 0.30.0."""
    index.publish("0.30.0", package())
    index.publish("0.31.0", package(DRIFTED))
    index.publish("0.32.0", package())
    return index


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["compat", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_scan_says_what_fits_and_exits_with_1_where_a_required_patch_does_not(
    releases: Index, capsys: Any
) -> None:
    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--vllm", "0.30.0")
    assert code == 0
    assert out.startswith("vLLM 0.30.0: fits; 2 of 2 patches fit (wheel ")
    assert len(out.splitlines()) == 1

    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--vllm", "0.30.0", "0.31.0")
    assert code == 1
    assert "vLLM 0.31.0: drifted; 1 of 2 patches fit" in out
    assert SCHEDULE in out
    assert "body changed" in out
    assert "+        if budget < 0:" in out
    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--vllm", "0.31.0", "--brief")
    assert code == 1
    assert "+        if budget < 0:" not in out


def test_scan_reads_the_newest_release_unless_told_otherwise(releases: Index, capsys: Any) -> None:
    _, out, _ = run(capsys, "scan", "--patches", "acme_compat")
    assert out.startswith("vLLM 0.32.0: fits")
    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--latest", "2", "--brief")
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("vLLM")] == [
        "vLLM 0.31.0",
        "vLLM 0.32.0",
    ]


def test_scan_in_json_has_it_all(releases: Index, capsys: Any) -> None:
    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--vllm", "0.31.0", "--json")

    assert code == 1
    (finding,) = json.loads(out)
    assert (finding["release"], finding["fit"]) == ("0.31.0", "drifted")
    schedule, queue = finding["patches"]
    assert (schedule["patch"], schedule["required"], schedule["fit"]) == ("schedule", True, "drifted")
    assert (queue["fit"], queue["surfaces"][0]["surface"]) == ("fits", QUEUE)
    assert schedule["surfaces"][0]["change"] == "body changed"
    assert schedule["surfaces"][0]["diff"]


def test_scan_takes_a_folder_and_a_wheel(releases: Index, tmp_path: Path, capsys: Any) -> None:
    root = write_package(tmp_path / "checkout", package(DRIFTED))
    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--path", str(root), "--as", "0.31.5")
    assert code == 1
    assert out.startswith("vLLM 0.31.5: drifted")
    wheel = tmp_path / "vllm-0.32.0-py3-none-any.whl"
    wheel.write_bytes(wheel_of(package()))
    code, out, _ = run(capsys, "scan", "--patches", "acme_compat", "--wheel", str(wheel))
    assert code == 0
    assert out.startswith("vLLM 0.32.0: fits")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "--vllm", "9.9.9"], "the package index offers no vLLM 9.9.9"),
        (["scan", "--path", "/nowhere"], "/nowhere: there is no package 'vllm' in it"),
        (["scan", "--wheel", "/nowhere/vllm-0.30.0-py3-none-any.whl"], "there is no such file"),
        (["scan", "--vllm", "0.30.0", "--as", "0.31.0"], "--as says what --path or --wheel is"),
        (["adopt", "9.9.9"], "the package index offers no vLLM 9.9.9"),
        (["adopt", "0.31.0", "--accept", "nothing"], "'nothing' is no changed surface"),
        (["watch", "--results", "/nowhere/results.json"], "no release was run yet"),
        (["test", "--vllm", "0.30.0", "--project", "/nowhere"], "/nowhere: not a checkout of vllm-vlinders"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    releases: Index, capsys: Any, arguments: list[str], said: str
) -> None:
    code, out, err = run(capsys, *arguments, "--patches", "acme_compat")

    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert err.startswith("vlinders: ")


def test_a_wrong_selection_is_wrong_usage(releases: Index, capsys: Any) -> None:
    code, _, err = run(capsys, "scan", "--patches", "acme_compatt")

    assert code == 2
    assert err.startswith("vlinders: --patches: no module named 'acme_compatt'")


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan", "--latest", "0"],
        ["scan", "--latest", "some"],
        ["scan", "--vllm", "newest"],
        ["scan", "--latest", "2", "--vllm", "0.30.0"],
        ["test"],
        ["adopt"],
        [],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compat", *arguments])
    assert caught.value.code == 2


def test_verdicts_go_into_the_table(releases: Index, tmp_path: Path, capsys: Any) -> None:
    table = tmp_path / "results.json"
    run(capsys, "scan", "--patches", "acme_compat", "--vllm", "0.30.0", "0.31.0", "--results", str(table))

    rows = read_results(table).rows
    assert {release: row.level for release, row in rows.items()} == {
        "0.30.0": Level.STATIC,
        "0.31.0": Level.DRIFTED,
    }


def test_nothing_is_written_where_one_of_several_cannot_be_scanned(
    releases: Index, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "results.json"
    code, _, _ = run(
        capsys, "scan", "--patches", "acme_compat", "--vllm", "0.30.0", "9.9.9", "--results", str(table)
    )

    assert code == 2
    assert not table.exists()


def test_watch_scans_what_is_newer_than_the_newest_that_was_run(
    releases: Index, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / "results.json"
    watch = ("watch", "--patches", "acme_compat", "--results", str(table), "--brief")
    suites = [Suite(name, 1, 1, "2026-11-01") for name in ("own", "patches", "integration")]
    for release, expected in (("0.30.0", ["0.31.0", "0.32.0"]), ("0.32.0", [])):
        results = read_results(table)
        results.add_run(Run(release, "a build", False, "3.11", "0.1.0", [], suites))
        write_results(table, results)
        code, out, _ = run(capsys, *watch)
        scanned = [line.split()[1].strip(":") for line in out.splitlines() if line.startswith("vLLM")]
        assert scanned == expected
        assert code == (1 if expected else 0)
    assert out == "nothing newer than vLLM 0.32.0, the newest release that was run\n"


def test_adopt_prints_what_is_left_and_how_to_take_it(releases: Index, capsys: Any) -> None:
    code, out, _ = run(capsys, "adopt", "0.31.0", "--patches", "acme_compat")
    assert code == 1
    assert "+        if budget < 0:" in out
    assert "2 fingerprints of vLLM 0.31.0" in out
    assert f"  {SCHEDULE}: body changed" in out

    code, out, _ = run(capsys, "adopt", "0.31.0", "--patches", "acme_compat", "--accept", SCHEDULE)
    assert code == 0
    assert "3 fingerprints of vLLM 0.31.0" in out


def test_report_writes_each_form_that_is_asked_for(tmp_path: Path, capsys: Any) -> None:
    names = {"markdown": "COMPATIBILITY.md", "html": "page.html", "badge": "badge.json"}
    arguments = [part for form, name in names.items() for part in (f"--{form}", str(tmp_path / name))]
    code, out, _ = run(capsys, "report", *arguments)

    assert (code, out) == (0, "")
    assert (tmp_path / "COMPATIBILITY.md").read_text().startswith("# Compatibility matrix\n")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "badge.json").read_text())["label"] == "vLLM"
    code, out, _ = run(capsys, "report")
    assert out == (tmp_path / "COMPATIBILITY.md").read_text()


@pytest.mark.parametrize("table", [[], ["--results", "empty.json"]])
def test_without_a_record_nothing_can_have_failed(table: list[str], capsys: Any) -> None:
    code, _, err = run(capsys, "test", "--vllm", "0.32.0", "--only", "failed", *table)
    assert code == 2
    assert "no run of vLLM 0.32.0 is on record" in err


def test_an_interrupted_fetch_leaves_nothing(releases: Index, tmp_path: Path) -> None:
    """Ctrl-C while the index holds back a part of the wheel."""
    releases.hold = True
    command = [sys.executable, "-m", "vllm_vlinders.cli", "compat", "scan", "--vllm", "0.30.0"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as process:
        assert releases.held.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert list((tmp_path / "cache" / "vllm-vlinders" / "sources").iterdir()) == []
