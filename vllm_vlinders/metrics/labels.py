"""Label values of a bounded number, the same in all API server processes of a server."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path

OTHER = "other"
NONE = "none"


class LabelValues:
    """The first so many values stand for themselves, all others are `OTHER`.

    The processes keep the list in one file, which only grows: each reads it when it meets a new value,
    until the list is full. Without the file each keeps its own.

    Args:
        most: how many values stand for themselves.
        reserved: values that are on the list from the start.
        path: the file; None: this process keeps its own list.
    """

    def __init__(self, most: int, reserved: Iterable[str] = (), path: Path | None = None) -> None:
        self._most = most
        self._path = path
        self._known = set(list(dict.fromkeys(reserved))[:most])
        self._read = 0

    def of(self, value: str) -> str:
        """Return `value` if it is on the list or finds a place there, else `OTHER`."""
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        if self._path is None:
            self._known.add(value)
        else:
            try:
                self._claim(self._path, value)
            except OSError:  # the run directory is gone: the server is ending
                self._path = None
                self._known.add(value)
        return value if value in self._known else OTHER

    def _claim(self, path: Path, value: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            file.seek(self._read)
            for line in file:
                self._known.add(json.loads(line))
                self._read += len(line)
            if value not in self._known and len(self._known) < self._most:
                line = json.dumps(value).encode() + b"\n"
                os.write(descriptor, line)
                self._read += len(line)
                self._known.add(value)
