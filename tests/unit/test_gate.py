from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from vllm_vlinders.patching import VLLMPatch
from vllm_vlinders.patching.fingerprint import SourceTree
from vllm_vlinders.patching.gate import Fit, drift_policy, judge, recorded_fingerprints
from vllm_vlinders.patching.table import load_fingerprints, record, write_table

SOURCE = "class Class:\n    def method(self): return 1\n\ndef helper(): return 2\n"


class Patch(VLLMPatch):
    name = "p"
    target = {">=0.28": "pack:Class", "<0.28": None}
    versions = ">=0.27,<0.34"
    relies_on = ("pack:helper",)

    def method(self: Any) -> None: ...


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceTree:
    (tmp_path / "pack.py").write_text(SOURCE)
    table, missing = record([Patch], {"0.28.0": tmp_path, "0.30.0": tmp_path})
    assert missing == []
    monkeypatch.setattr(Patch, "fingerprints", table)
    return SourceTree(tmp_path)


@pytest.mark.parametrize(
    ("version", "fit"),
    [
        ("0.26.0", Fit.NOT_FOR_VERSION),
        ("0.27.0", Fit.NOT_NEEDED),
        ("0.28.0+cpu", Fit.FITS),
        ("0.29.0", Fit.FITS),
        ("0.33.1.dev5+gabc", Fit.FITS),
        ("0.34.0", Fit.NOT_FOR_VERSION),
        ("0.34.0.dev1", Fit.NOT_FOR_VERSION),
    ],
)
def test_the_gate_by_version(source: SourceTree, version: str, fit: Fit) -> None:
    assert judge(Patch, Version(version), source).fit is fit


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return 1", "return 3", "pack:Class.method differs from vLLM 0.28.0"),
        ("return 2", "return 3", "pack:helper differs from vLLM 0.28.0"),
        ("def helper", "def assistant", "pack:helper does not exist"),
        ("class Class", "class Klass", "pack:Class.method does not exist"),
    ],
)
def test_drift_names_what_changed(
    source: SourceTree, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    (tmp_path / "pack.py").write_text(SOURCE.replace(old, new))
    verdict = judge(Patch, Version("0.28.0"), SourceTree(tmp_path))
    assert verdict.fit is Fit.DRIFTED
    assert verdict.detail == expected


def test_without_fingerprints_nothing_can_be_vouched_for(
    source: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patch, "fingerprints", {})
    verdict = judge(Patch, Version("0.28.0"), source)
    assert verdict.fit is Fit.DRIFTED
    assert "no fingerprints are recorded for vLLM 0.28.0" in verdict.detail


def test_an_unrecorded_release_is_held_against_the_newest_earlier_one() -> None:
    table = {"0.9.0": {"a": "1"}, "0.28.0": {"a": "2"}, "0.30.0": {"a": "3"}}
    assert recorded_fingerprints(table, Version("0.29.5+cpu")) == ("0.28.0", {"a": "2"})
    assert recorded_fingerprints(table, Version("0.30.0")) == ("0.30.0", {"a": "3"})
    assert recorded_fingerprints(table, Version("0.8")) == (None, {})


def test_drift_is_refused_for_required_patches_and_skips_optional_ones_by_default() -> None:
    assert drift_policy(None, required=True) == "refuse"
    assert drift_policy(None, required=False) == "skip"
    assert drift_policy("warn", required=True) == "warn"
    assert drift_policy("skip", required=True) == "skip"
    assert drift_policy("skip", required=True, guards_access=True) == "refuse"
    assert drift_policy("warn", required=True, guards_access=True) == "warn"


def test_a_table_survives_writing_and_a_missing_surface_is_told(tmp_path: Path) -> None:
    (tmp_path / "pack.py").write_text("class Class: ...\n")
    table, missing = record([Patch], {"0.30.0": tmp_path})
    assert missing == ["vLLM 0.30.0 has no pack:Class.method", "vLLM 0.30.0 has no pack:helper"]
    write_table(tmp_path / "fingerprints.json", table)
    assert load_fingerprints(str(tmp_path / "any.py")) == table
    write_table(tmp_path / "fingerprints.json", {"0.31.0": {"a": "b"}})
    assert load_fingerprints(str(tmp_path / "any.py")) == {**table, "0.31.0": {"a": "b"}}
