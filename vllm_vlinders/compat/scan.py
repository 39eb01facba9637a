"""The static scan: every surface of every patch, in releases that nobody has to install."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from packaging.version import Version

from vllm_vlinders.compat.sources import Release, Sources
from vllm_vlinders.compat.surface import Change, SurfaceFinding, explain
from vllm_vlinders.errors import CompatError, DeclarationError
from vllm_vlinders.patching.declare import contains
from vllm_vlinders.patching.discover import PatchClass, load_module
from vllm_vlinders.patching.fingerprint import SourceTree
from vllm_vlinders.patching.gate import Fit, Verdict, judge, recorded_fingerprints


@dataclass(frozen=True, slots=True)
class PatchFinding:
    """How a patch fits a release.

    Attributes:
        patch: its name.
        module: the package that declares it.
        feature: what it belongs to.
        required: whether a server refuses to start without it.
        fit: the verdict of the gate, as the server itself would reach it.
        detail: why, unless it fits.
        surfaces: what became of all that it replaces or relies on.
    """

    patch: str
    module: str
    feature: str
    required: bool
    fit: Fit
    detail: str
    surfaces: list[SurfaceFinding] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the patch can do its work, or has none to do."""
        return self.fit in (Fit.FITS, Fit.NOT_NEEDED)


@dataclass(frozen=True, slots=True)
class ReleaseFinding:
    """How all patches fit a release."""

    release: str
    origin: str
    patches: list[PatchFinding]

    @property
    def fit(self) -> Fit:
        """The worst verdict on a required patch."""
        fits = {finding.fit for finding in self.patches if finding.required}
        return next((fit for fit in (Fit.NOT_FOR_VERSION, Fit.DRIFTED) if fit in fits), Fit.FITS)

    @property
    def changed(self) -> list[SurfaceFinding]:
        """Every surface that is not what it was, each once."""
        found = {
            finding.surface: finding
            for patch in self.patches
            for finding in patch.surfaces
            if finding.change is not Change.UNCHANGED
        }
        return list(found.values())


class Scanner:
    """Holds patches against releases.

    Args:
        patches: which.
        sources: where releases come from, those to compare with too.
    """

    def __init__(self, patches: Sequence[PatchClass], sources: Sources) -> None:
        self._patches = patches
        self._sources = sources
        self._trees: dict[str, tuple[Release, SourceTree]] = {}

    def scan(self, release: Release) -> ReleaseFinding:
        """Return how the patches fit a release.

        Raises:
            CompatError: its sources are not Python that this interpreter can parse.
        """
        tree = release.tree()
        try:
            findings = [self._judge(patch, release, tree) for patch in self._patches]
        except SyntaxError as error:
            raise CompatError(
                f"vLLM {release.version}: {error.filename} is not Python that this interpreter can read "
                f"({error.msg}, line {error.lineno}); use a newer Python"
            ) from None
        tree.save()
        return ReleaseFinding(str(release.version), release.origin, findings)

    def _judge(self, patch: PatchClass, release: Release, tree: SourceTree) -> PatchFinding:
        verdict = _verdict(patch, release.version, tree)
        surfaces = [
            self._examine(patch, surface, release, tree) for surface in surfaces_at(patch, release.version)
        ]
        about = (patch.name, patch.module(), patch.feature, patch.required)
        return PatchFinding(*about, verdict.fit, verdict.detail, surfaces)

    def _examine(self, patch: PatchClass, surface: str, release: Release, tree: SourceTree) -> SurfaceFinding:
        recorded_for, expected = recorded_surface(patch, surface, release.version)
        if recorded_for is None:
            return SurfaceFinding(surface, Change.UNRECORDED)
        if tree.fingerprint(surface) == expected:
            return SurfaceFinding(surface, Change.UNCHANGED, recorded_for)
        try:
            was, before = self._recorded(recorded_for)
        except CompatError as error:
            return SurfaceFinding(surface, Change.CHANGED, recorded_for, f"cannot compare: {error}")
        return explain(surface, was, release, (before, tree))

    def _recorded(self, version: str) -> tuple[Release, SourceTree]:
        if version not in self._trees:
            release = self._sources.get(Version(version))
            self._trees[version] = (release, release.tree())
        return self._trees[version]


def surfaces_at(patch: PatchClass, version: Version) -> list[str]:
    """Return what `patch` would replace and rely on at `version`, be it inside its `versions` or not."""
    try:
        return patch.surfaces(version)
    except DeclarationError:
        recorded_for, _ = recorded_fingerprints(patch.fingerprints, version)
        return patch.surfaces(Version(recorded_for)) if recorded_for else []


def recorded_surface(patch: PatchClass, surface: str, version: Version) -> tuple[str | None, str]:
    """Return the release that records `surface` and is nearest to `version`, and the fingerprint.

    That is the newest one that is not newer; before the first one, the first.
    """
    table = {release: row for release, row in patch.fingerprints.items() if surface in row}
    recorded_for, row = recorded_fingerprints(table, version)
    if recorded_for is None and table:
        recorded_for = min(table, key=Version)
        row = table[recorded_for]
    return recorded_for, row.get(surface, "")


def _verdict(patch: PatchClass, version: Version, source: SourceTree) -> Verdict:
    """Return what the server would say: the package's own range first, then the gate."""
    supported = getattr(load_module(patch.module()), "SUPPORTED_VLLM", "")
    if not contains(supported, version):
        detail = f"{patch.module()} supports vLLM {supported}"
        return Verdict(Fit.NOT_FOR_VERSION, detail)
    try:
        verdict = judge(patch, version, source)
    except DeclarationError as error:
        return Verdict(Fit.NOT_FOR_VERSION, str(error))
    if verdict.fit is Fit.NOT_FOR_VERSION:
        return Verdict(verdict.fit, f"written for vLLM {patch.versions}")
    return verdict
