"""Adopting a release: its unchanged surfaces are recorded, the rest is left for a person to read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_vlinders.compat.scan import Scanner
from vllm_vlinders.compat.sources import Release
from vllm_vlinders.compat.surface import Change, SurfaceFinding
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.discover import PatchClass
from vllm_vlinders.patching.table import table_path, write_table


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was recorded of a release, and what was not.

    Attributes:
        recorded: the tables that were written, and how many fingerprints of the release each has.
        left: the surfaces that a person must read first.
    """

    recorded: dict[Path, int]
    left: list[SurfaceFinding]


def adopt(
    patches: Sequence[PatchClass], scanner: Scanner, release: Release, accepted: Collection[str]
) -> Adoption:
    """Record the fingerprints of all that is unchanged in a release, or was `accepted` by a person.

    Raises:
        CompatError: `accepted` names something that is no changed surface of these patches, or is gone.
    """
    finding = scanner.scan(release)
    tree = release.tree()
    changed = {surface.surface: surface for surface in finding.changed}
    takeable = {name for name in changed if tree.fingerprint(name)}
    wrong = sorted(set(accepted) - takeable)
    if wrong:
        known = ", ".join(sorted(takeable)) or "none"
        raise CompatError(f"{wrong[0]!r} is no changed surface of vLLM {release.version}; these are: {known}")
    rows: dict[Path, dict[str, str]] = {}
    for patch, judged in zip(patches, finding.patches, strict=True):
        row = rows.setdefault(table_path(patch), {})
        for surface in judged.surfaces:
            found = tree.fingerprint(surface.surface)
            if found and (surface.change is Change.UNCHANGED or surface.surface in accepted):
                row[surface.surface] = found
    for path, row in rows.items():
        try:
            write_table(path, {release.version.public: dict(sorted(row.items()))})
        except OSError as error:
            raise CompatError(f"{path} cannot be written: {error}") from None
    left = [surface for name, surface in changed.items() if name not in accepted]
    return Adoption({path: len(row) for path, row in rows.items()}, left)
