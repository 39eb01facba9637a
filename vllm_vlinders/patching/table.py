"""The table of fingerprints beside a package's patches: ``fingerprints.json``, made by a command.

Release to surface to fingerprint. ``vlinders patches record`` writes it; nobody types it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.version import Version

from vllm_vlinders.errors import DeclarationError
from vllm_vlinders.patching.declare import contains
from vllm_vlinders.patching.discover import PatchClass, load_module
from vllm_vlinders.patching.fingerprint import SourceTree

TABLE_FILE = "fingerprints.json"
Table = dict[str, dict[str, str]]


def load_fingerprints(beside: str) -> Table:
    """Return the table in the folder of the file `beside` (pass ``__file__``); empty if there is none.

    Raises:
        DeclarationError: the table is not readable JSON.
    """
    return _read(Path(beside).with_name(TABLE_FILE))


def table_path(patch: PatchClass) -> Path:
    """Return where the table of the package that declares `patch` stands: beside the patch."""
    return Path(str(load_module(patch.__module__).__file__)).with_name(TABLE_FILE)


def _read(path: Path) -> Table:
    try:
        table: Table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        message = f"{path}: not a table of fingerprints: {error}"
        raise DeclarationError(message) from None
    return table


def record(patches: Iterable[PatchClass], releases: Mapping[str, Path]) -> tuple[Table, list[str]]:
    """Compute the table of `patches` from unpacked releases.

    Args:
        patches: the patches whose surfaces to record.
        releases: version to the folder that holds its ``vllm`` package.

    Returns:
        The table, and one sentence for each surface that a release does not have.
    """
    table: Table = {}
    missing = []
    for release in sorted(releases, key=Version):
        source = SourceTree(releases[release])
        written_for = [patch for patch in patches if contains(patch.versions, Version(release))]
        surfaces = {s for patch in written_for for s in patch.surfaces(Version(release))}
        row = {surface: source.fingerprint(surface) for surface in sorted(surfaces)}
        missing += [f"vLLM {release} has no {name}" for name, found in row.items() if not found]
        table[release] = {name: found for name, found in row.items() if found}
    return table, missing


def write_table(path: Path, table: Table) -> None:
    """Write the releases of `table` to `path`, sorted; other releases that stand there are kept.

    Raises:
        DeclarationError: what stands there is not a table.
    """
    merged = {**_read(path), **table}
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(merged, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)
