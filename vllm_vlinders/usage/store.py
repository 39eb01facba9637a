"""The ledger's tables, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
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

    def add(self, rows: Mapping[Key, Amounts], journal: str, stored: Counted, loss: Loss) -> None:
        """Add `rows` and `loss`, and note that `journal` has accounted for so much in all.

        Raises:
            StoreError: nothing has been added.
        """
        with self._database.transaction(write=True) as connection:
            for key, amounts in sorted(rows.items()):  # one order for all: no deadlocks
                _add(connection, USAGE, key._asdict(), amounts._asdict())
            if loss.requests:
                _add(
                    connection, LOSSES, {"day": loss.day}, {"requests": loss.requests, "tokens": loss.tokens}
                )
            connection.execute(sa.delete(JOURNALS).where(JOURNALS.c.name == journal))
            connection.execute(sa.insert(JOURNALS).values(name=journal, **stored._asdict()))

    def forget(self, journal: str) -> None:
        """Forget a journal that has been closed."""
        with self._database.transaction(write=True) as connection:
            connection.execute(sa.delete(JOURNALS).where(JOURNALS.c.name == journal))

    def lose(self, journal: str, counted: Counted, day: str) -> Counted:
        """Count as lost on `day` what `journal` counted and did not store; return how much that is."""
        with self._database.transaction(write=True) as connection:
            query = sa.select(JOURNALS.c.requests, JOURNALS.c.tokens).where(JOURNALS.c.name == journal)
            stored = connection.execute(query).one_or_none() or Counted()
            lost = Counted(max(0, counted.requests - stored[0]), max(0, counted.tokens - stored[1]))
            if lost != Counted():
                _add(connection, LOSSES, {"day": day}, lost._asdict())
            connection.execute(sa.delete(JOURNALS).where(JOURNALS.c.name == journal))
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


def _add(
    connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], amounts: Mapping[str, Any]
) -> None:
    """Add `amounts` to the row of `key`, which is made if there is none."""
    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[connection.dialect.name]
    statement = insert(table).values(**key, **amounts)
    sums = {name: table.c[name] + statement.excluded[name] for name in amounts}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=sums))
