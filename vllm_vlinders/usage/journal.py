"""What a process has counted, in a file that outlives it: so that what it could not store is known.

A process that is killed loses what it has not stored yet; its file says how much that was. The file is
mapped into memory, which takes a microsecond and survives `kill -9`. Its owner holds a lock on it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FORM = struct.Struct("<qq")
_SUFFIX = ".journal"


class Counted(NamedTuple):
    """Requests and their tokens."""

    requests: int = 0
    tokens: int = 0


class Journal:
    """The file of this process.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.name = uuid.uuid4().hex
        self._path = folder / (self.name + _SUFFIX)
        # Under its name it is seen only once it is locked.
        draft = self._path.with_suffix(".draft")
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.ftruncate(self._descriptor, _FORM.size)
        self._map = mmap.mmap(self._descriptor, _FORM.size)
        draft.rename(self._path)
        self._counted = Counted()

    def count(self, requests: int, tokens: int) -> None:
        """Note what is about to be counted."""
        before = self._counted
        self._counted = Counted(before.requests + requests, before.tokens + tokens)
        self._map[:] = _FORM.pack(*self._counted)

    def close(self) -> None:
        """Remove the file: all has been stored."""
        self._path.unlink(missing_ok=True)
        self._map.close()
        os.close(self._descriptor)


class Leftover(NamedTuple):
    """The journal of a process that ended without closing it."""

    name: str
    counted: Counted
    path: Path


def leftovers(folder: Path) -> Iterator[Leftover]:
    """Yield the journals of processes that are gone, locked while they are looked at; remove them after."""
    for path in sorted(folder.glob("*" + _SUFFIX)):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = os.pread(descriptor, _FORM.size, 0)
            if path.exists() and len(data) == _FORM.size:
                yield Leftover(path.stem, Counted(*_FORM.unpack(data)), path)
                path.unlink(missing_ok=True)
        except OSError:
            continue  # its process lives, or it cannot be removed
        finally:
            os.close(descriptor)
