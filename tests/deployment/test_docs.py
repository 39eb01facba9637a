"""docs/deploy.md: every block says whether it is run, and names what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"(?m)^## ", TEXT)[1:]
MARKS = ("**tested**", "**not run here**", "**Not run here**", "(**not run here**:")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_every_section_with_a_block_says_whether_it_is_run(section: str) -> None:
    blocks = re.findall(r"(?m)(?:^    .+\n)+", section)
    assert not blocks or any(mark in section for mark in MARKS)


def test_what_it_names_exists() -> None:
    named = set(re.findall(r"\b(?:docker|examples|\.github)/[\w./-]*[\w]", TEXT))

    assert len(named) >= 10
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_overlay_and_profile_is_described() -> None:
    for folder in ("kubernetes/overlays", "profiles"):
        for one in (ROOT / "docker" / folder).iterdir():
            assert f"| `{one.name}` |" in TEXT


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", TEXT):
        assert re.search(rf"(?m)^{target}:", makefile), target
