"""The ledger's tables, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vllm_vlinders.database import Database
from vllm_vlinders.usage.entry import Amounts, Key, Loss
from vllm_vlinders.usage.journal import Counted

_METADATA = sa.MetaData()
USAGE = sa.Table(
    "vlinders_usage",
    _METADATA,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(512), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt", sa.BigInteger, nullable=False),
    sa.Column("cached", sa.BigInteger, nullable=False),
    sa.Column("completion", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Float, nullable=False),
)
JOURNALS = sa.Table(
    "vlinders_usage_journals",
    _METADATA,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
)
LOSSES = sa.Table(
    "vlinders_usage_losses",
    _METADATA,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
)


class UsageStore:
    """What has been used, by `Key`.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        StoreError: the database does not answer, or is none.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, "usage.store", "the usage ledger")
        with self._database.transaction(write=True) as connection:
            if connection.dialect.name == "postgresql":  # servers that start at once
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x766C696E64657273)))
            _METADATA.create_all(connection)

    def add(
        self,
        rows: Mapping[Key, Amounts],
        journal: str | None,
        stored: Counted,
        loss: Loss,
        *,
        again: bool = False,
    ) -> None:
        """Add `rows` and `loss`, and note that `journal` has accounted for so much in all.

        Args:
            rows: sums by key.
            journal: the name of the process's journal; None: it has none.
            stored: all that the process has accounted for with these rows.
            loss: what is missing.
            again: the same has been tried before: it may be there already, only the answer having been lost.

        Raises:
            StoreError: nothing has been added; or all, and the answer was lost.
        """
        with self._database.transaction(write=True) as connection:
            if again and journal is not None and _accounted(connection, journal) == stored:
                return
            if rows:  # in one order for all: no deadlocks
                lines = [key._asdict() | amounts._asdict() for key, amounts in sorted(rows.items())]
                connection.execute(_adding(connection, USAGE), lines)
            if loss.requests:
                connection.execute(_adding(connection, LOSSES), loss._asdict())
            if journal is not None:
                _account(connection, journal, stored)

    def forget(self, journal: str) -> None:
        """Forget a journal that has been closed."""
        with self._database.transaction(write=True) as connection:
            connection.execute(sa.delete(JOURNALS).where(JOURNALS.c.name == journal))

    def lose(self, journal: str, counted: Counted, day: str) -> Counted:
        """Count as lost on `day` what `journal` counted and did not store; return how much that is."""
        with self._database.transaction(write=True) as connection:
            stored = _accounted(connection, journal)
            lost = Counted(max(0, counted.requests - stored[0]), max(0, counted.tokens - stored[1]))
            if lost != Counted():
                connection.execute(_adding(connection, LOSSES), {"day": day, **lost._asdict()})
            _account(connection, journal, counted)
        return lost

    def read(self, first: str, last: str, tenant: str | None = None) -> dict[Key, Amounts]:
        """Return what was used from the day `first` to the day `last`, both included."""
        query = sa.select(USAGE).where(USAGE.c.day.between(first, last))
        if tenant is not None:
            query = query.where(USAGE.c.tenant == tenant)
        with self._database.transaction(write=False) as connection:
            rows = connection.execute(query.order_by(USAGE.c.day, USAGE.c.tenant, USAGE.c.model)).all()
        return {Key(*row[:3]): Amounts(*row[3:]) for row in rows}

    def lost(self, first: str, last: str) -> Counted:
        """Return what was lost in those days."""
        sums = [sa.func.coalesce(sa.func.sum(column), 0) for column in (LOSSES.c.requests, LOSSES.c.tokens)]
        query = sa.select(*sums).where(LOSSES.c.day.between(first, last))
        with self._database.transaction(write=False) as connection:
            return Counted(*map(int, connection.execute(query).one()))

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


def _accounted(connection: sa.Connection, journal: str) -> Counted:
    """Return how much a journal has accounted for."""
    query = sa.select(JOURNALS.c.requests, JOURNALS.c.tokens).where(JOURNALS.c.name == journal)
    row = connection.execute(query).one_or_none()
    return Counted() if row is None else Counted(*row)


def _account(connection: sa.Connection, journal: str, counted: Counted) -> None:
    """Note how much a journal has accounted for."""
    connection.execute(_replacing(connection, JOURNALS), {"name": journal, **counted._asdict()})


def _adding(connection: sa.Connection, table: sa.Table) -> Any:
    """Return the statement that adds to the row of a key, which is made if there is none."""
    return _upsert(connection.dialect.name, table, adds=True)


def _replacing(connection: sa.Connection, table: sa.Table) -> Any:
    """Return the statement that sets the row of a key."""
    return _upsert(connection.dialect.name, table, adds=False)


@cache
def _upsert(dialect: str, table: sa.Table, *, adds: bool) -> Any:
    """Return a statement, made once: that takes SQLAlchemy longer than a database takes to run it."""
    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[dialect]
    statement = insert(table)
    values = {
        column.name: column + statement.excluded[column.name] if adds else statement.excluded[column.name]
        for column in table.columns
        if not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=values)
