"""Which model each session has, known to all API server processes of a server: a table in a mapped file."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

_ENTRY = struct.Struct("<QII")
_PLACES = 2**16


class SessionMemory:
    """A table of fixed size: a session that falls on the place of another one takes it.

    Entries are 16 bytes and written whole, without a lock. What a race could leave is an entry whose check
    fails, or the model that the session had a moment ago; either is a decision anew, never a wrong model.

    Args:
        path: the file; made if it is missing.
        names: the models, in an order that is the same in all processes.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._places = {name: place for place, name in enumerate(self._names)}
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _PLACES * _ENTRY.size)
            self._table = mmap.mmap(descriptor, _PLACES * _ENTRY.size)
        finally:
            os.close(descriptor)

    def get(self, tenant: str | None, session: str) -> str | None:
        """Return the model of a tenant's session, None if it is not known."""
        key, offset = _place(tenant, session)
        entry: tuple[int, int, int] = _ENTRY.unpack_from(self._table, offset)
        found, model, check = entry
        if found != key or check != _check(key, model) or model >= len(self._names):
            return None
        return self._names[model]

    def put(self, tenant: str | None, session: str, model: str) -> None:
        """Note the model of a tenant's session."""
        key, offset = _place(tenant, session)
        place = self._places[model]
        self._table[offset : offset + _ENTRY.size] = _ENTRY.pack(key, place, _check(key, place))


def share_of(tenant: str | None, session: str) -> float:
    """Return a number from 0 to below 1 that is always the same for a session."""
    return _hash(tenant, session) / 2**64


def _place(tenant: str | None, session: str) -> tuple[int, int]:
    key = _hash(tenant, session)
    return key, key % _PLACES * _ENTRY.size


def _hash(tenant: str | None, session: str) -> int:
    text = f"{tenant or ''}\0{session}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _check(key: int, model: int) -> int:
    return (key ^ key >> 32 ^ (model + 1) * 0x9E3779B1) & 0xFFFFFFFF
