"""What the configured package indexes offer of a project (PEP 503 pages, PEP 691 JSON)."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from vllm_vlinders.compat.pip_settings import PipSettings
from vllm_vlinders.compat.web import NotThereError, Web, display
from vllm_vlinders.errors import CompatError

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, text/html;q=0.5"


@dataclass(frozen=True, slots=True)
class Archive:
    """A wheel or sdist that an index offers.

    Attributes:
        name: the file's name.
        url: where it is.
        version: of which release.
        yanked: withdrawn by its maker.
        sha256: of the whole file, where the index says so.
    """

    name: str
    url: str
    version: Version
    yanked: bool = False
    sha256: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel, else an sdist."""
        return self.name.endswith(".whl")


class PackageIndex:
    """All the indexes and links that pip is configured for, read as one."""

    def __init__(self, settings: PipSettings) -> None:
        self.settings = settings
        self.web = Web(settings)
        self._pages: dict[str, list[Archive]] = {}

    def archives(self, project: str) -> list[Archive]:
        """Return every wheel and sdist of `project`, each file name once; the first index wins.

        Raises:
            CompatError: none of the indexes can be read.
        """
        if project not in self._pages:
            found: dict[str, Archive] = {}
            problems = []
            addresses = [f"{index}/{project}/" for index in self.settings.indexes]
            for address in (*addresses, *self.settings.find_links):
                try:
                    for archive in self._read(address, project):
                        found.setdefault(archive.name, archive)
                except NotThereError:
                    continue
                except CompatError as error:
                    problems.append(str(error))
            if problems and not found:
                raise CompatError(f"{problems[0]}. Check the network, and the index of `pip config list`")
            self._pages[project] = list(found.values())
        return self._pages[project]

    def releases(self, project: str) -> list[Version]:
        """Return the final releases that are not withdrawn, oldest first."""
        return sorted(
            {
                archive.version
                for archive in self.archives(project)
                if not archive.yanked and not archive.version.is_prerelease
            }
        )

    def _read(self, address: str, project: str) -> Iterator[Archive]:
        folder = _local_folder(address)
        if folder is not None and not (folder / "index.html").is_file():
            links = [(path.name, path.as_uri(), False, "") for path in sorted(folder.iterdir())]
        elif folder is not None:
            page = folder / "index.html"
            links = _links(page.read_text("utf-8"), page.as_uri())
        else:
            with self.web.open(address, Accept=_ACCEPT) as response:
                text, base = response.read().decode("utf-8", "replace"), response.url
                is_json = response.headers.get_content_type() == _JSON
            links = _json_links(text, base) if is_json else _links(text, base)
        for name, url, yanked, sha256 in links:
            version = version_of_file(name, project)
            if version is not None:
                yield Archive(name, url, version, yanked, sha256)


def version_of_file(name: str, project: str) -> Version | None:
    """Return the version that a file name states; None if it is no archive of `project`."""
    try:
        if name.endswith(".whl"):
            found, version, *_ = parse_wheel_filename(name)
        else:
            found, version = parse_sdist_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None
    return version if found == canonicalize_name(project) else None


def _local_folder(address: str) -> Path | None:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        folder = Path(urllib.request.url2pathname(parts.path))
    elif not parts.scheme:
        folder = Path(address)
    else:
        return None
    if not folder.is_dir():
        raise NotThereError(f"{display(address)}: there is no such folder")
    return folder


_Link = tuple[str, str, bool, str]


def _json_links(text: str, base: str) -> list[_Link]:
    try:
        return [
            (
                file["filename"],
                urllib.parse.urljoin(base, file["url"]),
                bool(file.get("yanked")),
                file.get("hashes", {}).get("sha256", ""),
            )
            for file in json.loads(text)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CompatError(f"{display(base)}: not a page of a package index") from None


def _links(text: str, base: str) -> list[_Link]:
    page = _Page()
    page.feed(text)
    links = []
    for attributes in page.anchors:
        url = urllib.parse.urljoin(base, attributes.get("href") or "")
        parts = urllib.parse.urlsplit(url)
        name = urllib.parse.unquote(parts.path.rpartition("/")[2])
        digest = re.search(r"sha256=([0-9a-f]{64})", parts.fragment)
        links.append((name, url, "data-yanked" in attributes, digest.group(1) if digest else ""))
    return links


class _Page(HTMLParser):
    """Collects the attributes of all links."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a link."""
        if tag == "a":
            self.anchors.append(dict(attrs))
