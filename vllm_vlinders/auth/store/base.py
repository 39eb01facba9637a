"""What every store of keys can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vllm_vlinders.auth.keys import KeyRecord


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed in a store.

    Attributes:
        upto: the number of the last change, to be asked from the next time.
        records: the records that are new or changed.
        complete: `records` are all there are: forget the others.
    """

    upto: int
    records: list[KeyRecord]
    complete: bool = False


class KeyStore(Protocol):
    """Keeps the records of keys. All methods may block, and raise `StoreError` where it does not answer.

    Those that write raise `KeyRequestError` in a store that is read-only.
    """

    def changes(self, since: int) -> Changes:
        """Return what has changed after the change of number `since`; 0: everything."""
        ...

    def add(self, record: KeyRecord, *, replaced: KeyRecord | None = None) -> None:
        """Store a new record and, in the same step, the record of the key it replaces.

        Raises:
            KeyRequestError: that key has been revoked meanwhile, and nothing is stored.
        """
        ...

    def put(self, record: KeyRecord) -> None:
        """Store `record` in the place of the one of its id; of two ends (`expires`, `revoked`) the earlier stays."""
        ...

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record of that id."""
        ...

    def all(self) -> Iterable[KeyRecord]:
        """Return all records."""
        ...

    def touch(self, uses: Mapping[str, float]) -> None:
        """Note when keys were last used: id to seconds since 1970."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
