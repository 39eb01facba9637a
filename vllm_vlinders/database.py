"""Databases by URL: SQLite and PostgreSQL, opened and used in one way. A leaf.

Imported where a database is used; it brings SQLAlchemy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vllm_vlinders.errors import SettingsError, StoreError

_TIMEOUT_SECONDS = 5


class Database:
    """Connections to one database.

    Args:
        url: as SQLAlchemy takes it.
        setting: the dotted key of the setting it comes from, for messages.
        role: what the database is to us, for messages.

    Raises:
        SettingsError: the URL is none, or its driver is not installed.
        StoreError: the file of an SQLite database cannot be made.
    """

    def __init__(self, url: str, setting: str, role: str) -> None:
        self._role = role
        self._engine = _engine(url, setting)
        if self._engine.url.get_backend_name() == "sqlite":
            _make_file(self._engine.url.database, setting, role)

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction.

        Raises:
            StoreError: the database does not answer, or is none; without the parameters of statements.
        """
        try:
            connection = self._engine.connect().execution_options(vlinders_write=write)
            with connection, connection.begin():
                yield connection
        except sa.exc.SQLAlchemyError as error:
            # The text of the error can hold the parameters of a statement, or the address with its user.
            reason = type(getattr(error, "orig", None) or error).__name__
            address = self._engine.url.render_as_string(hide_password=True)
            raise StoreError(f"{self._role} {address} does not answer as it should: {reason}") from None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def check_url(url: str, setting: str) -> None:
    """Check the URL of a database, without opening it.

    Raises:
        SettingsError: it is none, or its driver is not installed.
    """
    _engine(url, setting).dispose()


def _engine(url: str, setting: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        timeout = {"timeout" if sqlite else "connect_timeout": _TIMEOUT_SECONDS}
        engine = sa.create_engine(
            parsed, connect_args=timeout, pool_pre_ping=not sqlite, hide_parameters=True
        )
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError):
        raise SettingsError(f"{setting}: not a URL of a database that is known") from None
    except ImportError as error:
        message = f"{setting}: {error.name} is not installed: pip install 'vllm-vlinders[postgresql]'"
        raise SettingsError(message) from None
    if sqlite:
        sa.event.listen(engine, "connect", _leave_transactions_to_us)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _make_file(database: str | None, setting: str, role: str) -> None:
    """Make the file of a new SQLite database, for its owner's eyes alone."""
    if not database:
        raise SettingsError(f"{setting}: an SQLite store needs a file: sqlite:////absolute/path")
    path = Path(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
    except OSError as error:
        raise StoreError(f"{role} {path} cannot be opened: {error.strerror}") from None


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    """Take the lock for writing at once: one taken later can fail where two have begun to read."""
    write = connection.get_execution_options().get("vlinders_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
