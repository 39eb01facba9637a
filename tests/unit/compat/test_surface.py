"""What became of one definition, where a name has several bindings or stands in a block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version

from vllm_vlinders.compat.sources import Release
from vllm_vlinders.compat.surface import Change, SurfaceFinding, explain
from vllm_vlinders.patching.fingerprint import SourceTree

Explain = Callable[[str, str], SurfaceFinding]

PROPERTY = """
class Queue:
    @property
    def size(self) -> int:
        return len(self.entries)

    @size.setter
    def size(self, size: int) -> None:
        self.entries = self.entries[:size]
"""
GETTER = PROPERTY[PROPERTY.index("    @property") : PROPERTY.index("    @size")]
BRANCHES = """
class Queue:
    if sys.platform == "linux":
        def size(self, of): return of.st_size
    else:
        def size(self, of): return 0
"""


@pytest.fixture
def explained(tmp_path: Path) -> Explain:
    """Explain ``vllm.core:Queue.size`` between two sources of the module."""

    def explain_both(old: str, new: str) -> SurfaceFinding:
        releases = []
        for version, source in (("0.30.0", old), ("0.31.0", new)):
            file = tmp_path / version / "vllm" / "core.py"
            file.parent.mkdir(parents=True)
            file.write_text(source, encoding="utf-8")
            releases.append(Release(Version(version), tmp_path / version, "folder"))
        was, now = releases
        return explain("vllm.core:Queue.size", was, now, (SourceTree(was.root), SourceTree(now.root)))

    return explain_both


@pytest.mark.parametrize(
    ("old", "new", "change", "said"),
    [
        pytest.param(
            PROPERTY, PROPERTY.replace(GETTER, ""), Change.SIGNATURE, "definitions: 2 → 1", id="getter gone"
        ),
        pytest.param(
            PROPERTY,
            PROPERTY.replace("@property", "@cached_property"),
            Change.SIGNATURE,
            "decorators: @property → @cached_property",
            id="getter decorated anew",
        ),
        pytest.param(
            PROPERTY,
            PROPERTY.replace("-> int", "-> float"),
            Change.SIGNATURE,
            "returns int → float",
            id="getter returns another type",
        ),
        pytest.param(
            BRANCHES,
            BRANCHES.replace("size(self, of): return of", "size(self, of, unit=1): return of"),
            Change.SIGNATURE,
            "new parameter 'unit' (positional, default 1)",
            id="one branch has a new parameter",
        ),
        pytest.param(
            BRANCHES,
            BRANCHES.replace("self, of", "self, of, unit=1"),
            Change.SIGNATURE,
            "new parameter 'unit' (positional, default 1)",
            id="both branches have it, said once",
        ),
        pytest.param(PROPERTY, PROPERTY.replace("len(", "sum("), Change.BODY, "", id="body of the getter"),
    ],
)
def test_every_binding_counts(explained: Explain, old: str, new: str, change: Change, said: str) -> None:
    finding = explained(old, new)

    assert (finding.change, finding.detail) == (change, said)
    assert finding.diff


def test_what_stands_in_a_with_block_now_is_not_gone(explained: Explain) -> None:
    guarded = BRANCHES.replace('if sys.platform == "linux":', "with patched():").replace(
        "    else:\n        def size(self, of): return 0\n", ""
    )
    plain = guarded.replace("    with patched():\n", "").replace("        def", "    def")

    assert explained(plain, guarded.replace("of.st_size", "1")).change is Change.BODY
