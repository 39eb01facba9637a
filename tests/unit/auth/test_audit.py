"""The audit log's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_vlinders import sinks
from vllm_vlinders.auth.audit import Audit
from vllm_vlinders.settings import AuditSettings
from vllm_vlinders.settings.logging import RotationSettings


@pytest.mark.parametrize(
    ("rotation", "files"),
    [(None, 1), (RotationSettings(max_bytes=4096, kept=2), 3)],
    ids=["never", "asked for"],
)
def test_it_is_put_aside_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotation: RotationSettings | None, files: int
) -> None:
    monkeypatch.setattr(sinks, "_LOOK_SECONDS", -1.0)
    audit = Audit(AuditSettings(path=tmp_path / "audit.log", rotation=rotation))

    for number in range(200):
        audit.write("request", number=number, filler="x" * 100)

    found = sorted(tmp_path.iterdir())
    assert len(found) == files
    numbers = [json.loads(line)["number"] for path in found for line in path.read_text().splitlines()]
    assert len(numbers) == len(set(numbers))
    assert max(numbers) == 199
    assert len(numbers) == 200 or files > 1
