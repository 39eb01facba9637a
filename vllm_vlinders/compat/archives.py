"""Taking vLLM's Python sources out of wheels and sdists, without installing or running anything."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from vllm_vlinders.compat.web import RemoteFile, Web
from vllm_vlinders.errors import CompatError

Wanted = Callable[[str], bool]
_CHUNK = 1 << 20
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, tarfile.TarError, gzip.BadGzipFile),
    *(EOFError, NotImplementedError, UnicodeDecodeError),
)
"""What the libraries raise for archives that are cut off, damaged or of a kind that they do not know."""


def is_source(name: str) -> bool:
    """Tell whether a file of a release is one that patches can touch."""
    return name.startswith("vllm/") and name.endswith(".py")


def unpack_wheel(wheel: Path, folder: Path, wanted: Wanted = is_source) -> None:
    """Unpack what is `wanted` of a local wheel.

    Raises:
        CompatError: it is broken, or holds nothing of that kind.
    """
    with _broken(wheel.name), zipfile.ZipFile(wheel) as archive:
        _unpack_zip(archive, folder, wanted)


def unpack_remote_wheel(web: Web, url: str, folder: Path) -> None:
    """Unpack the sources of a wheel on a server, fetching only their parts of it.

    Raises:
        NoRangesError: the server sends whole files only.
        CompatError: the wheel is broken or cannot be read.
    """
    remote = RemoteFile(web, url)
    # The bytes of an entry are its header (whose name and extra field may be longer than the
    # directory says, hence the allowance) and its content.
    with _broken(url), zipfile.ZipFile(cast("IO[bytes]", remote)) as archive:
        chosen = [entry for entry in archive.infolist() if is_source(entry.filename)]
        remote.prefetch(
            (entry.header_offset, entry.header_offset + 256 + len(entry.filename) + entry.compress_size)
            for entry in chosen
        )
        _unpack_zip(archive, folder, is_source)


def unpack_sdist(sdist: Path, folder: Path, wanted: Wanted = is_source) -> None:
    """Unpack what is `wanted` of a local sdist; its own top folder is left out.

    Raises:
        CompatError: it is broken, or holds nothing of that kind.
    """
    with _broken(sdist.name), tarfile.open(sdist, "r:gz") as archive:
        found = 0
        for member in archive:
            _, _, member.name = member.name.partition("/")
            if member.isfile() and wanted(member.name):
                archive.extract(member, folder, filter="data")
                found += 1
        _check_found(found)


@contextmanager
def downloaded(web: Web, url: str, sha256: str) -> Iterator[Path]:
    """Yield a whole file of a server, which is gone afterwards.

    Raises:
        CompatError: it cannot be read, or is not the file that the index announced.
    """
    with tempfile.TemporaryDirectory(prefix="vlinders-") as folder:
        path = Path(folder) / url.partition("#")[0].rpartition("/")[2]
        digest = hashlib.sha256()
        with web.open(url) as response, path.open("wb") as file:
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if sha256 and digest.hexdigest() != sha256:
            raise CompatError(f"{path.name}: broken archive: not the file that the index announces (sha256)")
        yield path


@contextmanager
def _broken(name: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        short = name.partition("#")[0].rpartition("/")[2]
        raise CompatError(f"{short}: broken archive: {str(error) or type(error).__name__}") from None


def _unpack_zip(archive: zipfile.ZipFile, folder: Path, wanted: Wanted) -> None:
    found = 0
    for entry in archive.infolist():
        if entry.is_dir() or not wanted(entry.filename):
            continue
        if ".." in PurePosixPath(entry.filename).parts:
            raise zipfile.BadZipFile(f"{entry.filename!r} leads out of the archive")
        archive.extract(entry, folder)
        found += 1
    _check_found(found)


def _check_found(found: int) -> None:
    if not found:
        raise EOFError("it holds no package 'vllm'")
