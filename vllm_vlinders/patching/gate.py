"""Step 3: a patch is held against the installed vLLM; pure decisions, values instead of exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from typing import Literal

from packaging.version import InvalidVersion, Version

from vllm_vlinders.errors import UnsupportedVersionError
from vllm_vlinders.patching.declare import VLLMPatch, contains
from vllm_vlinders.patching.fingerprint import SourceTree

DriftPolicy = Literal["refuse", "warn", "skip"]


class Fit(StrEnum):
    """How a patch fits the installed vLLM."""

    FITS = "fits"
    NOT_NEEDED = "not_needed"
    NOT_FOR_VERSION = "not_for_version"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of the gate: how the patch fits and, unless it does, why not."""

    fit: Fit
    detail: str = ""


def judge(patch: type[VLLMPatch], version: Version, source: SourceTree) -> Verdict:
    """Hold `patch` against vLLM `version` whose source is `source`."""
    if not contains(patch.versions, version):
        return Verdict(
            Fit.NOT_FOR_VERSION,
            f"written for vLLM {patch.versions}, installed is {version.public}",
        )
    if patch.target_for(version) is None:
        return Verdict(Fit.NOT_NEEDED, f"vLLM {version.public} has nothing to patch here")
    differences = compare(patch, version, source)
    return Verdict(Fit.DRIFTED, "; ".join(differences)) if differences else Verdict(Fit.FITS)


def compare(patch: type[VLLMPatch], version: Version, source: SourceTree) -> list[str]:
    """Return one sentence for each surface of `patch` that differs from what it was written for."""
    recorded_for, expected = recorded_fingerprints(patch.fingerprints, version)
    if recorded_for is None:
        return [f"no fingerprints are recorded for vLLM {version.public} or an earlier release"]
    differences = []
    for surface in patch.surfaces(version):
        found = source.fingerprint(surface)
        if surface not in expected:
            differences.append(f"{surface} has no fingerprint recorded for {recorded_for}")
        elif found is None:
            differences.append(f"{surface} does not exist")
        elif found != expected[surface]:
            differences.append(f"{surface} differs from vLLM {recorded_for}")
    return differences


def recorded_fingerprints(
    table: Mapping[str, Mapping[str, str]], version: Version
) -> tuple[str | None, Mapping[str, str]]:
    """Return the newest recorded release that is not newer than `version`, and its fingerprints."""
    public = Version(version.public)
    earlier = [release for release in table if Version(release) <= public]
    if not earlier:
        return None, {}
    newest = max(earlier, key=Version)
    return newest, table[newest]


def drift_policy(
    configured: DriftPolicy | None, *, required: bool, guards_access: bool = False
) -> DriftPolicy:
    """Return what to do with a drifted patch: as configured, else refuse if required, else skip.

    What guards access is not skipped: that would be an open door.
    """
    policy = configured or ("refuse" if required else "skip")
    return "refuse" if guards_access and policy == "skip" else policy


@cache
def running_vllm_version() -> Version:
    """Return the version of the installed vLLM, with its local part, as in ``0.32.0+cpu``.

    Raises:
        UnsupportedVersionError: vLLM is not installed, or its version cannot be read.
    """
    try:
        return Version(distribution_version("vllm"))
    except PackageNotFoundError:
        pass
    except InvalidVersion as error:
        message = f"the installed vLLM has a version that is not PEP 440: {error}"
        raise UnsupportedVersionError(message) from None
    version = version_in(SourceTree())
    if version is None:
        message = "vLLM is not installed in this environment; install it first: pip install vllm"
        raise UnsupportedVersionError(message)
    return version


def version_in(source: SourceTree) -> Version | None:
    """Read ``vllm/_version.py``: builds for other platforms carry other distribution names."""
    path = source.file_of("vllm._version")
    text = path.read_text(encoding="utf-8") if path else ""
    found = re.search(r"^(?:__version__ = )?version = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return Version(found.group(1)) if found else None
