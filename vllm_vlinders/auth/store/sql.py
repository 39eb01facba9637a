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


class SqlStore:
    """The tables of `tables`, behind an SQLAlchemy URL.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        StoreError: the database does not answer, or is none.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, "auth.keys.store", "the key store")
        with self._database.transaction(write=False) as connection:
            current = bring_up_to_date(connection, check_only=True)
        if not current:
            with self._database.transaction(write=True) as connection:
                bring_up_to_date(connection)

    def changes(self, since: int) -> Changes:
        """Return what has changed; all of it where the counter stands before `since`, as in a restored copy."""
        with self._database.transaction(write=False) as connection:
            upto = connection.execute(sa.select(COUNTER.c.value)).scalar_one()
            complete = upto < since or not since
            if upto == since:
                return Changes(upto, [])
            query = sa.select(KEYS).where(KEYS.c.change > (0 if complete else since))
            return Changes(upto, [_record(row) for row in connection.execute(query)], complete)

    def add(self, record: KeyRecord, *, replaced: KeyRecord | None = None) -> None:
        """Insert `record`, and update the one it replaces."""
        with self._database.transaction(write=True) as connection:
            change = _next_change(connection)
            connection.execute(sa.insert(KEYS).values(**asdict(record), change=change))
            if replaced is not None:
                _update(connection, replaced, change)

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


def _update(connection: sa.Connection, record: KeyRecord, change: int) -> None:
    values = {name: value for name, value in asdict(record).items() if name not in ("id", "last_used")}
    connection.execute(sa.update(KEYS).where(KEYS.c.id == record.id).values(**values, change=change))


def _record(row: sa.Row[Any]) -> KeyRecord:
    return KeyRecord(**{name: value for name, value in row._mapping.items() if name != "change"})
