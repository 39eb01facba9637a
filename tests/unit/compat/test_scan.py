"""The scanner against doctored sources: each change named right, and no false alarm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version

from made_up import BASE, FREE, QUEUE, SCHEDULE, Index, package, write_package
from vllm_vlinders.compat.scan import ReleaseFinding, Scanner
from vllm_vlinders.compat.sources import Release, Sources
from vllm_vlinders.compat.surface import Change, SurfaceFinding
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.discover import PatchClass
from vllm_vlinders.patching.gate import Fit

Scan = Callable[..., ReleaseFinding]


@pytest.fixture
def scan(index: Index, acme: list[PatchClass], tmp_path: Path) -> Scan:
    """Scan a made-up release; 0.30.0, which the patches were recorded for, is on the index."""
    index.publish("0.30.0", package())

    def run(files: dict[str, str], version: str = "0.31.0") -> ReleaseFinding:
        root = write_package(tmp_path / f"doctored-{version}", files)
        return Scanner(acme, Sources()).scan(Release(Version(version), root, "folder"))

    return run


def changes(finding: ReleaseFinding) -> dict[str, SurfaceFinding]:
    return {surface.surface: surface for surface in finding.changed}


@pytest.mark.parametrize(
    "core",
    [
        pytest.param(BASE, id="identical"),
        pytest.param(BASE.replace("# the order matters", "# another comment"), id="comment"),
        pytest.param(BASE.replace('"""Return ids."""', '"""Say something else."""'), id="docstring"),
        pytest.param(
            BASE.replace(
                "budget: int = 5, *, fast: bool = False", "\n  budget: int=5,\n  *, fast: bool=False,\n  "
            ),
            id="formatting",
        ),
        pytest.param(
            BASE.replace("import os", "import os, sys").replace("WEIGHT: int = 3", ""), id="neighbours"
        ),
        pytest.param(f"{BASE}\ndef added():\n    return 1\n", id="addition"),
    ],
)
def test_no_false_alarm(scan: Scan, core: str) -> None:
    finding = scan(package(core))

    assert finding.fit is Fit.FITS
    assert finding.changed == []
    assert all(patch.holds for patch in finding.patches)


FAST = "fast: bool = False"
SIGNATURE = f"def schedule(self, budget: int = 5, *, {FAST}) -> list[int]:"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("int = 5", "int = 6", "default of 'budget': 5 → 6"),
        (FAST, "fast: bool", "default of 'fast': False → none"),
        (FAST, "fast: int = False", "annotation of 'fast': bool → int"),
        (f"*, {FAST}", FAST, "kind of 'fast': keyword-only → positional"),
        (
            f"budget: int = 5, *, {FAST}",
            f"{FAST}, budget: int = 5",
            "re-ordered: self, budget, fast → self, fast, budget",
        ),
        (f", *, {FAST}", "", "parameter 'fast' is gone"),
        (FAST, f"{FAST}, eager=None", "new parameter 'eager' (keyword-only, default None)"),
        ("self, budget", "self, step, budget", "new parameter 'step' (positional, required)"),
        ("budget: int", "tokens: int", "parameter 'budget' is called 'tokens' now"),
        ("-> list[int]", "-> set[int]", "returns list[int] → set[int]"),
        ("    def schedule", "    async def schedule", "is async now"),
        ("    def schedule", "    @cached\n    def schedule", "decorators: none → @cached"),
        ("chosen.append(request.id)", "yield request.id", "is a generator now"),
    ],
)
def test_a_changed_signature_is_told_exactly(scan: Scan, old: str, new: str, said: str) -> None:
    assert BASE.count(old) >= 1
    finding = scan(package(BASE.replace(old, new, 1)))

    found = changes(finding)[SCHEDULE]
    assert set(changes(finding)) == {SCHEDULE}
    assert found.change is Change.SIGNATURE
    assert said in found.detail
    assert finding.fit is Fit.DRIFTED


def test_a_changed_body_comes_with_a_diff_of_just_that_function(scan: Scan) -> None:
    core = BASE.replace("if budget <= 0", "if budget < 0").replace("WEIGHT: int = 3", "WEIGHT: int = 4")
    core = core.replace("# the order matters", "# another comment")

    found = changes(scan(package(core)))[SCHEDULE]

    assert found.change is Change.BODY
    assert found.compared_with == "0.30.0"
    changed = [
        line for line in found.diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert changed == ["-        if budget <= 0:", "+        if budget < 0:"]
    assert f"vLLM 0.30.0 {SCHEDULE}" in found.diff
    assert f"vLLM 0.31.0 {SCHEDULE}" in found.diff


def without(name: str) -> str:
    """Return the base without one of its definitions."""
    start = BASE.index(name)
    following = [BASE.find(mark, start + 1) for mark in ("\n    def free", "\n\ndef make_queue")]
    end = min([position for position in following if position > start], default=len(BASE))
    return BASE[:start].rstrip(" ") + BASE[end:]


def test_a_function_that_is_gone_is_gone_though_others_are_like_it_by_name(scan: Scan) -> None:
    other = "class Unrelated:\n    def schedule(self):\n        raise NotImplementedError\n"
    found = changes(scan(package(without("    def schedule"), other=other)))

    assert found[SCHEDULE].change is Change.GONE
    assert found[SCHEDULE].diff == ""
    assert set(found) == {SCHEDULE}


def test_what_is_used_in_its_place_but_stood_there_before_is_no_new_place(
    scan: Scan, index: Index, acme: list[PatchClass]
) -> None:
    twin = BASE.replace("class Scheduler", "class Twin")
    index.publish("0.30.0", package(twin=twin))
    found = changes(scan(package(without("    def schedule"), twin=twin)))

    assert found[SCHEDULE].change is Change.GONE


def test_a_moved_module_is_found_by_name_and_shape(scan: Scan) -> None:
    found = changes(scan(package("", engine__parts__core=BASE)))

    assert {finding.change for finding in found.values()} == {Change.MOVED}
    assert found[SCHEDULE].detail == "to vllm.engine.parts.core:Scheduler.schedule; unchanged there"
    assert found[QUEUE].detail == "to vllm.engine.parts.core:make_queue; unchanged there"


def test_a_move_behind_a_shim_is_followed_through_its_imports(scan: Scan) -> None:
    shim = "from vllm.engine import Scheduler, make_queue\n"
    moved = {
        "vllm/engine/__init__.py": "from .real import Scheduler\nfrom .real import build as make_queue\n",
        "vllm/engine/real.py": BASE.replace("def make_queue", "def build"),
    }
    found = changes(scan(package(shim) | moved))

    assert found[SCHEDULE].detail == "to vllm.engine.real:Scheduler.schedule; unchanged there"
    assert found[QUEUE].detail.startswith("to vllm.engine.real:build; ")
    assert {finding.change for finding in found.values()} == {Change.MOVED}


def test_moved_and_changed_is_told_as_both(scan: Scan) -> None:
    core = BASE.replace("budget <= 0", "budget < 0").replace("size: int = 10", "size: int = 20")
    found = changes(scan(package("", engine=core)))

    assert found[SCHEDULE].detail == "to vllm.engine:Scheduler.schedule; its body changed"
    assert "+        if budget < 0:" in found[SCHEDULE].diff
    assert found[QUEUE].detail == "to vllm.engine:make_queue; default of 'size': 10 → 20"
    assert "unchanged there" in found[FREE].detail


def test_a_renamed_function_and_a_renamed_class_are_found(scan: Scan) -> None:
    found = changes(
        scan(package(BASE.replace("def schedule", "def plan").replace("def make_queue", "def queue")))
    )
    assert found[SCHEDULE].detail.startswith("to vllm.core:Scheduler.plan")
    assert found[QUEUE].detail.startswith("to vllm.core:queue")

    found = changes(scan(package(BASE.replace("class Scheduler", "class Planner"))))
    assert found[SCHEDULE].detail == "to vllm.core:Planner.schedule; unchanged there"
    assert found[FREE].detail == "to vllm.core:Planner.free; unchanged there"


def test_a_class_that_became_a_function_and_a_function_that_became_a_class(scan: Scan) -> None:
    core = BASE[: BASE.index("class Scheduler")] + "def Scheduler():\n    return 1\n"
    found = changes(scan(package(f"{core}\n\nclass make_queue:\n    size = 1\n")))

    assert found[SCHEDULE].change is Change.GONE
    assert (found[QUEUE].change, found[QUEUE].detail) == (
        Change.SIGNATURE,
        "was a function, is a class now",
    )


def test_what_stays_at_its_place_is_not_looked_for_elsewhere(scan: Scan) -> None:
    made_async = BASE.replace("    def schedule", "    async def schedule")
    found = changes(scan(package(made_async, legacy=BASE)))[SCHEDULE]

    assert (found.change, found.detail) == (Change.SIGNATURE, "is async now")


def test_only_an_optional_patch_that_drifts_leaves_the_release_fitting(scan: Scan) -> None:
    finding = scan(package(BASE.replace("-entry", "entry")))

    assert [(patch.patch, patch.fit) for patch in finding.patches] == [
        ("schedule", Fit.FITS),
        ("queue", Fit.DRIFTED),
    ]
    assert finding.fit is Fit.FITS


@pytest.mark.parametrize("version", ["0.29.0", "0.33.0"])
def test_outside_the_range_it_still_says_what_changed(scan: Scan, version: str) -> None:
    finding = scan(package(BASE.replace("budget <= 0", "budget < 0")), version)

    assert finding.fit is Fit.NOT_FOR_VERSION
    assert [(s.surface, s.change, s.compared_with) for s in finding.changed] == [
        (SCHEDULE, Change.BODY, "0.30.0")
    ]
    assert finding.patches[0].detail == "acme_compat supports vLLM >=0.30,<0.33"


def test_without_the_recorded_release_the_change_is_told_but_not_explained(scan: Scan, index: Index) -> None:
    index.files.clear()
    found = changes(scan(package(BASE.replace("budget <= 0", "budget < 0"))))[SCHEDULE]

    assert found.change is Change.CHANGED
    assert "cannot compare" in found.detail


def test_without_any_record_nothing_is_vouched_for(scan: Scan, acme: list[PatchClass]) -> None:
    for patch in acme:
        patch.fingerprints = {}
    finding = scan(package())

    assert finding.fit is Fit.DRIFTED
    assert {surface.change for surface in finding.changed} == {Change.UNRECORDED}


def test_no_code_of_the_scanned_release_is_run(scan: Scan, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    bomb = f"open({str(witness)!r}, 'w').write('run')\nraise SystemExit('run')\n"
    files = package(bomb + BASE.replace("budget <= 0", "budget < 0"), extra=bomb)
    files |= {"vllm/__init__.py": bomb, "setup.py": bomb, "sitecustomize.py": bomb}

    finding = scan(files)

    assert set(changes(finding)) == {SCHEDULE}
    assert not witness.exists()
    assert "vllm.core" not in sys.modules


def test_source_that_this_python_cannot_read_is_said_so(scan: Scan) -> None:
    with pytest.raises(
        CompatError, match=r"vLLM 0.31.0: .*core.py is not Python that this interpreter can read"
    ):
        scan(package("def new syntax: ...\n"))
