"""Reading from package indexes: whole files, or parts of one where the server allows it."""

from __future__ import annotations

import base64
import http.client
import io
import netrc
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm_vlinders import __version__
from vllm_vlinders.compat.pip_settings import PipSettings
from vllm_vlinders.errors import CompatError

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)$")
_TAIL = 1 << 20
_GAP = 1 << 16
"""Parts closer than this are fetched as one: a request costs more than these bytes."""


class NoRangesError(CompatError):
    """The server sends whole files only."""


class NotThereError(CompatError):
    """There is nothing at an address."""


class Web:
    """Opens addresses as pip would: its certificates, its credentials, its trusted hosts."""

    def __init__(self, settings: PipSettings) -> None:
        self._settings = settings
        self._logins = {
            parts.hostname: (urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
            for parts in map(urllib.parse.urlsplit, (*settings.indexes, *settings.find_links))
            if parts.hostname and parts.username
        }

    @contextmanager
    def open(self, url: str, **headers: str) -> Iterator[Any]:
        """Yield the response to a request for `url`, with a header for each of `headers`.

        Raises:
            NotThereError: there is nothing at that address.
            CompatError: it cannot be read.
        """
        parts = urllib.parse.urlsplit(url)
        request = urllib.request.Request(_without_login(parts))  # noqa: S310 -- pip's own addresses
        request.add_header("User-Agent", f"vllm-vlinders/{__version__}")
        for name, value in headers.items():
            request.add_header(name, value)
        login = self._login(parts)
        if login:
            # Not sent on when the server redirects to another host.
            request.add_unredirected_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(  # noqa: S310 -- as above
                request, timeout=self._settings.timeout, context=self._trust(parts)
            ) as response:
                yield response
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise NotThereError(f"{display(url)}: there is nothing") from None
            raise CompatError(f"{display(url)}: HTTP {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, FileNotFoundError):
                raise NotThereError(f"{display(url)}: there is nothing") from None
            raise CompatError(f"{display(url)} cannot be read: {error.reason}") from None
        except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            raise CompatError(f"{display(url)} cannot be read: {error}") from None

    def _login(self, parts: urllib.parse.SplitResult) -> str:
        host = parts.hostname or ""
        login = self._logins.get(host)
        if login is None:
            try:
                known = netrc.netrc().authenticators(host)
            except (OSError, netrc.NetrcParseError):
                known = None
            login = (known[0], known[2]) if known else None
        return base64.b64encode(":".join(login).encode()).decode() if login else ""

    def _trust(self, parts: urllib.parse.SplitResult) -> ssl.SSLContext | None:
        if parts.scheme != "https":
            return None
        context = ssl.create_default_context(cafile=self._settings.certificate or None)
        if {parts.hostname, parts.netloc} & set(self._settings.trusted_hosts):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class RemoteFile(io.RawIOBase):
    """A file on a server, of which only the parts that are read are fetched.

    Raises:
        NoRangesError: the server sends whole files only.
    """

    def __init__(self, web: Web, url: str) -> None:
        super().__init__()
        self._web, self._url = web, url
        self._parts: list[tuple[int, bytes]] = []
        self._position = 0
        self._size = self._fetch(f"bytes=-{_TAIL}")

    def prefetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Fetch all bytes of `spans` (start, end), in as few requests as is sensible."""
        merged: list[list[int]] = []
        for start, end in sorted(spans):
            if merged and start - merged[-1][1] < _GAP:
                merged[-1][1] = max(end, merged[-1][1])
            else:
                merged.append([start, end])
        for start, end in merged:
            self._fetch(f"bytes={start}-{min(end, self._size) - 1}")

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, from what was fetched or else from the server."""
        end = self._size if size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        found = self._known(self._position, end)
        if found is None:
            self._fetch(f"bytes={self._position}-{end - 1}")
            found = self._known(self._position, end)
        if found is None:
            raise CompatError(f"{display(self._url)}: the server sent another part than was asked for")
        self._position = end
        return found

    def _known(self, start: int, end: int) -> bytes | None:
        for begin, content in self._parts:
            if begin <= start and end <= begin + len(content):
                return content[start - begin : end - begin]
        return None

    def _fetch(self, part: str) -> int:
        with self._web.open(self._url, Range=part) as response:
            found = _CONTENT_RANGE.match(response.headers.get("Content-Range") or "")
            if found is None:
                raise NoRangesError(f"{display(self._url)}: the server sends whole files only")
            start, last, size = map(int, found.groups())
            content = response.read()
        if len(content) != last - start + 1:
            raise CompatError(f"{display(self._url)}: the connection broke off")
        self._parts.append((start, content))
        return size


def display(url: str) -> str:
    """Return an address as it may be printed: without credentials, query and fragment."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without_login(parts: urllib.parse.SplitResult) -> str:
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
