"""Files that several processes write lines to: whole lines, rotation, and files that were moved away. A leaf."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

_STDERR = 2
_LOOK_SECONDS = 1.0


class StderrSink:
    """Standard error: survives replaced ``sys.stderr`` objects and forks, and the prefixes vLLM puts there."""

    def write(self, line: str) -> None:
        """Write one line."""
        _write(_STDERR, line)


class FileSink:
    """A file, for its owner's eyes alone.

    A line goes out by one write, at the end of the file, so that processes can share it. Where the file
    has been moved away, it is made anew. One that has grown beyond `most_bytes` is renamed to ``NAME.1``,
    the one before to ``NAME.2``, up to `kept` of them; lines that another process writes meanwhile go to
    the renamed file.

    Args:
        path: where it is.
        most_bytes: when to rotate; None: never.
        kept: how many old files to keep.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, most_bytes: int | None = None, kept: int = 5) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._kept = kept
        self._looked = time.monotonic()
        self._descriptor = self._open()

    def write(self, line: str) -> None:
        """Write one line."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._follow()
            self._rotate()
        _write(self._descriptor, line)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)

    def _follow(self) -> None:
        """Open the file anew if it is not the one at its path any more."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                return
        with contextlib.suppress(OSError):
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh

    def _rotate(self) -> None:
        if self._most_bytes is None or os.fstat(self._descriptor).st_size < self._most_bytes:
            return
        with contextlib.suppress(OSError):
            # Who holds the lock on the old file renames it; the others write on, and follow a little later.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                self._rename()
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._follow()

    def _rename(self) -> None:
        """Rename the file and the old ones, unless the file at the path is another one already."""
        if not os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
            return
        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._old(number).rename(self._old(number + 1))
        self._path.rename(self._old(1))

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _write(descriptor: int, line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, (line + "\n").encode("utf-8", "backslashreplace"))
