"""Keys in SQLite or PostgreSQL.

Each change gets the next number of one counter, which the transaction of the change holds locked until
its end: so numbers become visible in their order, and asking for all after the last one seen misses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from vllm_vlinders.auth.keys import KeyRecord
from vllm_vlinders.auth.store.base import Changes
from vllm_vlinders.auth.store.migrate import bring_up_to_date
from vllm_vlinders.auth.store.tables import COUNTER, KEYS
from vllm_vlinders.database import Database
from vllm_vlinders.errors import KeyRequestError


class SqlStore:
    """The tables of `tables`, behind an SQLAlchemy URL.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        StoreError: the database does not answer, or is none.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, "auth.keys.store", "the key store")
        self._file: tuple[int, ...] | None = None
        with self._database.transaction(write=False) as connection:
            current = bring_up_to_date(connection, check_only=True)
        if not current:
            with self._database.transaction(write=True) as connection:
                bring_up_to_date(connection)

    def changes(self, since: int) -> Changes:
        """Return what has changed; all of it in a restored copy.

        That is another file, or its counter stands before `since`.
        """
        file = self._database.file()
        with self._database.transaction(write=False) as connection:
            upto = connection.execute(sa.select(COUNTER.c.value)).scalar_one()
            complete = file != self._file or upto < since or not since
            records = [] if upto == since and not complete else _changed(connection, 0 if complete else since)
        self._file = file
        return Changes(upto, records, complete)

    def add(self, record: KeyRecord, *, replaced: KeyRecord | None = None) -> None:
        """Insert `record`, and update the one it replaces.

        Raises:
            KeyRequestError: that one has been revoked.
        """
        with self._database.transaction(write=True) as connection:
            change = _next_change(connection)
            if replaced is not None:
                _check_not_revoked(connection, replaced.id)
                _update(connection, replaced, change)
            connection.execute(sa.insert(KEYS).values(**asdict(record), change=change))

    def put(self, record: KeyRecord) -> None:
        """Update the row of `record`."""
        with self._database.transaction(write=True) as connection:
            _update(connection, record, _next_change(connection))

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record of that id."""
        with self._database.transaction(write=False) as connection:
            row = connection.execute(sa.select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
        return None if row is None else _record(row)

    def all(self) -> Iterable[KeyRecord]:
        """Return all records."""
        with self._database.transaction(write=False) as connection:
            return [_record(row) for row in connection.execute(sa.select(KEYS))]

    def touch(self, uses: Mapping[str, float]) -> None:
        """Note the last uses; no other process need hear of them, so they are no change."""
        if not uses:
            return
        statement = sa.update(KEYS).where(KEYS.c.id == sa.bindparam("key"))
        statement = statement.where(sa.func.coalesce(KEYS.c.last_used, 0) < sa.bindparam("at"))
        with self._database.transaction(write=True) as connection:
            rows = [{"key": key_id, "at": at} for key_id, at in sorted(uses.items())]
            connection.execute(statement.values(last_used=sa.bindparam("at")), rows)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


def _next_change(connection: sa.Connection) -> int:
    statement = sa.update(COUNTER).values(value=COUNTER.c.value + 1).returning(COUNTER.c.value)
    return int(connection.execute(statement).scalar_one())


def _changed(connection: sa.Connection, since: int) -> list[KeyRecord]:
    return [_record(row) for row in connection.execute(sa.select(KEYS).where(KEYS.c.change > since))]


def _check_not_revoked(connection: sa.Connection, key_id: str) -> None:
    """Look at the row itself, which no other process can change now that the counter is locked."""
    counts = sa.select(KEYS.c.id).where(KEYS.c.id == key_id, KEYS.c.revoked.is_(None))
    if connection.execute(counts).one_or_none() is None:
        raise KeyRequestError(f"key {key_id} has been revoked; create a new one", "key")


def _update(connection: sa.Connection, record: KeyRecord, change: int) -> None:
    """Write all but the last use; an end that another process has written stays where it is the earlier one."""
    values = {name: value for name, value in asdict(record).items() if name not in ("id", "last_used")}
    ends = {name: _earlier(KEYS.c[name], values[name]) for name in ("expires", "revoked")}
    statement = sa.update(KEYS).where(KEYS.c.id == record.id)
    connection.execute(statement.values(**{**values, **ends}, change=change))


def _earlier(column: sa.Column[Any], moment: float | None) -> Any:
    return column if moment is None else sa.case((column < moment, column), else_=moment)


def _record(row: sa.Row[Any]) -> KeyRecord:
    return KeyRecord(**{name: value for name, value in row._mapping.items() if name != "change"})
