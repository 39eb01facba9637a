"""What the project claims of vLLM releases, everywhere, is what the one table of results says."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vllm_vlinders import SUPPORTED_VLLM
from vllm_vlinders.compat.report import badge, markdown, page
from vllm_vlinders.compat.results import OUR_RESULTS, Level, read_results
from vllm_vlinders.patches import PATCHES
from vllm_vlinders.patches.base import FINGERPRINTS
from vllm_vlinders.patching.declare import contains
from vllm_vlinders.patching.discover import PatchClass

ROOT = Path(__file__).parents[3]
RESULTS = read_results(OUR_RESULTS)
RENEW = "run `make compat-scan`"
HOLDS = ("fits", "not_needed")

RANGE = re.compile(r">=0\.\d+\.\d+,<0\.\d+")
PINNED = re.compile(r"\bvllm(?:-cpu|-openai)?(?:==|:v)(\d+\.\d+\.\d+)")


def texts() -> Iterator[tuple[str, str]]:
    """Yield name and text of everything that people or builds read."""
    for pattern in (
        "*.md",
        "*.py",
        "Makefile",
        "docs/*.md",
        "scripts/*",
        "docker/**/*",
        ".github/**/*",
        ".ci/*",
    ):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix != ".html":
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_every_supported_release_is_in_the_table_and_fits() -> None:
    assert set(RESULTS.rows) == set(FINGERPRINTS), RENEW
    for release, row in RESULTS.rows.items():
        assert contains(SUPPORTED_VLLM, Version(release))
        assert row.level not in (None, Level.DRIFTED, Level.FAILED), release


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_a_patch_claims_the_releases_that_it_fits(patch: PatchClass) -> None:
    for release, row in RESULTS.rows.items():
        assert row.scan is not None, RENEW
        assert patch.name in row.scan.patches, RENEW
        claimed = contains(patch.versions, Version(release))
        assert claimed == (row.scan.patches[patch.name] in HOLDS), release


def test_the_table_knows_no_patch_that_is_gone() -> None:
    names = {name for row in RESULTS.rows.values() if row.scan for name in row.scan.patches}
    assert names == {patch.name for patch in PATCHES}, RENEW


def test_the_range_is_the_same_wherever_it_is_stated() -> None:
    stated = {name: set(RANGE.findall(text)) for name, text in texts()}
    stated = {name: ranges for name, ranges in stated.items() if ranges}

    assert {"setup.py", "README.md", "docs/compatibility.md"} <= set(stated)
    assert {name: ranges for name, ranges in stated.items() if ranges != {SUPPORTED_VLLM}} == {}


def test_the_range_ends_where_the_table_does() -> None:
    newest = max(map(Version, RESULTS.rows))
    oldest = min(map(Version, RESULTS.rows))
    bounds = {spec.operator: Version(spec.version) for spec in SpecifierSet(SUPPORTED_VLLM)}

    assert bounds[">="] == oldest
    assert bounds["<"] == Version(f"{newest.major}.{newest.minor + 1}")


def test_a_release_that_is_named_for_installing_is_a_supported_one() -> None:
    pinned = {(name, release) for name, text in texts() for release in PINNED.findall(text)}
    defaults = re.findall(r"(?:VLLM|VERSION) \??= \"?(\d+\.\d+\.\d+)", "".join(text for _, text in texts()))

    assert len(defaults) >= 3
    assert {release for _, release in pinned} | set(defaults) <= set(RESULTS.rows)


def test_make_and_the_workflow_run_every_release() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^SUPPORTED \?= (.+)$", makefile, re.MULTILINE)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "compat.yml").read_text(encoding="utf-8"))

    assert listed is not None
    assert listed.group(1).split() == RESULTS.releases()
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["vllm"] == RESULTS.releases()


def test_a_change_is_run_on_the_oldest_release_too() -> None:
    steps = re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    plan = subprocess.run(
        ["make", "--dry-run", *steps], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    (oldest,) = (
        number for number, line in enumerate(plan) if f"compat test --vllm {RESULTS.releases()[0]} " in line
    )
    assert any("make_tiny_model.py --deep" in line for line in plan[:oldest])


def test_the_nightly_scan_has_a_release_to_start_from() -> None:
    assert RESULTS.newest_run() is not None


def test_images_are_released_for_the_releases_that_were_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    stated = re.search(r"images for each vLLM release that was run .+ \(now\s([^;]+);", text)
    run = [
        release
        for release, row in RESULTS.rows.items()
        if row.level in (Level.PROVEN, Level.PART) and row.run and not row.run.hybrid
    ]

    assert workflow["jobs"]["image"]["strategy"]["matrix"]["vllm"] == run
    assert stated is not None
    assert stated.group(1).split(", ") == run


@pytest.mark.parametrize(
    ("file", "make"),
    [
        ("COMPATIBILITY.md", markdown),
        ("docs/compatibility.html", page),
        ("docs/compatibility-badge.json", badge),
    ],
)
def test_what_is_made_of_the_table_is_up_to_date(file: str, make: object) -> None:
    assert callable(make)
    assert (ROOT / file).read_text(encoding="utf-8") == make(RESULTS), "run `make compat-report`"


def test_the_table_stands_as_the_commands_write_it() -> None:
    text = OUR_RESULTS.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
