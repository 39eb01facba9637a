"""Adopting a release: what is unchanged is recorded, the rest waits for a person."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.version import Version

from made_up import BASE, FREE, QUEUE, SCHEDULE, Index, package, write_package
from vllm_vlinders.compat.adopt import Adoption, adopt
from vllm_vlinders.compat.scan import Scanner
from vllm_vlinders.compat.sources import Release, Sources
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.discover import PatchClass
from vllm_vlinders.patching.gate import Fit, judge
from vllm_vlinders.patching.table import load_fingerprints, table_path

NEW = Version("0.31.0")


@pytest.fixture
def release(index: Index, tmp_path: Path) -> Release:
    """A release whose `schedule` has another body and whose `free` is gone."""
    index.publish("0.30.0", package())
    core = BASE.replace("budget <= 0", "budget < 0").replace("def free", "def let_go")
    core = core.replace("self.finished.add(request.id)", "...").replace("return self.blocks.count", "...")
    return Release(NEW, write_package(tmp_path / "new", package(core)), "folder")


def take(patches: list[PatchClass], release: Release, *accepted: str) -> Adoption:
    done = adopt(patches, Scanner(patches, Sources()), release, accepted)
    table = load_fingerprints(str(table_path(patches[0])))
    for patch in patches:
        patch.fingerprints = table
    return done


def test_the_unchanged_is_recorded_and_the_rest_is_left(acme: list[PatchClass], release: Release) -> None:
    done = take(acme, release)

    table = json.loads(table_path(acme[0]).read_text())
    assert set(table) == {"0.30.0", "0.31.0"}
    assert set(table["0.31.0"]) == {QUEUE}
    assert table["0.31.0"][QUEUE] == table["0.30.0"][QUEUE]
    assert {surface.surface for surface in done.left} == {SCHEDULE, FREE}
    assert judge(acme[0], NEW, release.tree()).fit is Fit.DRIFTED
    assert judge(acme[1], NEW, release.tree()).fit is Fit.FITS


def test_what_was_read_is_accepted_by_name_and_stays(acme: list[PatchClass], release: Release) -> None:
    take(acme, release)
    done = take(acme, release, SCHEDULE)
    assert [surface.surface for surface in done.left] == [FREE]
    done = take(acme, release)

    assert set(acme[0].fingerprints["0.31.0"]) == {QUEUE, SCHEDULE}
    assert [surface.surface for surface in done.left] == [FREE]


@pytest.mark.parametrize("surface", ["vllm.core:nothing", QUEUE, FREE])
def test_only_what_changed_and_is_still_there_can_be_accepted(
    acme: list[PatchClass], release: Release, surface: str
) -> None:
    before = table_path(acme[0]).read_text()
    with pytest.raises(CompatError, match=f"is no changed surface of vLLM 0.31.0; these are: {SCHEDULE}$"):
        take(acme, release, surface)

    assert table_path(acme[0]).read_text() == before


def test_adopting_twice_changes_nothing(acme: list[PatchClass], release: Release) -> None:
    take(acme, release)
    before = table_path(acme[0]).read_text()
    take(acme, release)

    assert table_path(acme[0]).read_text() == before
