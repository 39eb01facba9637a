"""Keys in SQLite or PostgreSQL.

Each change gets the next number of one counter, which the transaction of the change holds locked until
its end: so numbers become visible in their order, and asking for all after the last one seen misses none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vllm_vlinders.auth.keys import KeyRecord
from vllm_vlinders.auth.store.base import Changes
from vllm_vlinders.auth.store.migrate import bring_up_to_date
from vllm_vlinders.auth.store.tables import COUNTER, KEYS
from vllm_vlinders.errors import SettingsError, StoreError

_TIMEOUT_SECONDS = 5


class SqlStore:
    """The tables of `tables`, behind an SQLAlchemy URL.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        StoreError: the database does not answer, or is none.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        with self._transaction(write=False) as connection:
            current = bring_up_to_date(connection, check_only=True)
        if not current:
            with self._transaction(write=True) as connection:
                bring_up_to_date(connection)

    def changes(self, since: int) -> Changes:
        """Return what has changed; all of it where the counter stands before `since`, as in a restored copy."""
        with self._transaction(write=False) as connection:
            upto = connection.execute(sa.select(COUNTER.c.value)).scalar_one()
            complete = upto < since or not since
            if upto == since:
                return Changes(upto, [])
            query = sa.select(KEYS).where(KEYS.c.change > (0 if complete else since))
            return Changes(upto, [_record(row) for row in connection.execute(query)], complete)

    def add(self, record: KeyRecord, *, replaced: KeyRecord | None = None) -> None:
        """Insert `record`, and update the one it replaces."""
        with self._transaction(write=True) as connection:
            change = _next_change(connection)
            connection.execute(sa.insert(KEYS).values(**asdict(record), change=change))
            if replaced is not None:
                _update(connection, replaced, change)

    def put(self, record: KeyRecord) -> None:
        """Update the row of `record`."""
        with self._transaction(write=True) as connection:
            _update(connection, record, _next_change(connection))

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record of that id."""
        with self._transaction(write=False) as connection:
            row = connection.execute(sa.select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
        return None if row is None else _record(row)

    def all(self) -> Iterable[KeyRecord]:
        """Return all records."""
        with self._transaction(write=False) as connection:
            return [_record(row) for row in connection.execute(sa.select(KEYS))]

    def touch(self, uses: Mapping[str, float]) -> None:
        """Note the last uses; no other process need hear of them, so they are no change."""
        if not uses:
            return
        statement = sa.update(KEYS).where(KEYS.c.id == sa.bindparam("key"))
        statement = statement.where(sa.func.coalesce(KEYS.c.last_used, 0) < sa.bindparam("at"))
        with self._transaction(write=True) as connection:
            rows = [{"key": key_id, "at": at} for key_id, at in sorted(uses.items())]
            connection.execute(statement.values(last_used=sa.bindparam("at")), rows)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        try:
            connection = self._engine.connect().execution_options(vlinders_write=write)
            with connection, connection.begin():
                yield connection
        except sa.exc.SQLAlchemyError as error:
            # The text of the error can hold the parameters of a statement, or the address with its user.
            reason = type(getattr(error, "orig", None) or error).__name__
            address = self._engine.url.render_as_string(hide_password=True)
            raise StoreError(f"the key store {address} does not answer as it should: {reason}") from None


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite:
            _make_file(parsed.database)
        timeout = {"timeout" if sqlite else "connect_timeout": _TIMEOUT_SECONDS}
        engine = sa.create_engine(
            parsed, connect_args=timeout, pool_pre_ping=not sqlite, hide_parameters=True
        )
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError):
        raise SettingsError("auth.keys.store: not a URL of a database that is known") from None
    except ImportError as error:
        message = f"auth.keys.store: {error.name} is not installed: pip install 'vllm-vlinders[postgresql]'"
        raise SettingsError(message) from None
    if sqlite:
        sa.event.listen(engine, "connect", _leave_transactions_to_us)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _make_file(database: str | None) -> None:
    """Make the file of a new SQLite database, for its owner's eyes alone."""
    if not database:
        raise SettingsError("auth.keys.store: an SQLite store needs a file: sqlite:////absolute/path")
    path = Path(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
    except OSError as error:
        raise StoreError(f"the key store {path} cannot be opened: {error.strerror}") from None


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    """Take the lock for writing at once: one taken later can fail where two have begun to read."""
    write = connection.get_execution_options().get("vlinders_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _next_change(connection: sa.Connection) -> int:
    statement = sa.update(COUNTER).values(value=COUNTER.c.value + 1).returning(COUNTER.c.value)
    return int(connection.execute(statement).scalar_one())


def _update(connection: sa.Connection, record: KeyRecord, change: int) -> None:
    values = {name: value for name, value in asdict(record).items() if name not in ("id", "last_used")}
    connection.execute(sa.update(KEYS).where(KEYS.c.id == record.id).values(**values, change=change))


def _record(row: sa.Row[Any]) -> KeyRecord:
    return KeyRecord(**{name: value for name, value in row._mapping.items() if name != "change"})
