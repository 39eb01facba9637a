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

_LIBPQ = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""What libpq is told: to give up a peer that is dead within ten seconds."""
_TIMEOUTS = sa.text(
    "SELECT set_config('statement_timeout', '5000', true), set_config('lock_timeout', '5000', true)"
)
"""Of the transaction alone: what is asked of a connection at its start, a pooler such as PgBouncer may refuse."""


class Database:
    """Connections to one database.

    The file of an SQLite database is opened for each transaction, so that it may be put in the place of
    another one; it is made at the start alone.

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
        self._path: Path | None = None
        if self._engine.url.get_backend_name() == "sqlite":
            self._path = _make_file(self._engine.url.database, setting, role)

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

    def file(self) -> tuple[int, ...] | None:
        """Return what tells the file of an SQLite database from others; None for other databases.

        Raises:
            StoreError: there is none.
        """
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError as error:
            raise StoreError(f"{self._role} {self._path} cannot be opened: {error.strerror}") from None
        return status.st_dev, status.st_ino

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
        engine = sa.create_engine(
            parsed,
            connect_args=_arguments(parsed),
            poolclass=sa.NullPool if sqlite else None,
            pool_pre_ping=not sqlite,
            hide_parameters=True,
        )
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError):
        raise SettingsError(f"{setting}: not a URL of a database that is known") from None
    except ImportError as error:
        message = f"{setting}: {error.name} is not installed: pip install 'vllm-vlinders[postgresql]'"
        raise SettingsError(message) from None
    if sqlite:
        sa.event.listen(engine, "do_connect", _open_what_is_there)
        sa.event.listen(engine, "connect", _leave_transactions_to_us)
        sa.event.listen(engine, "begin", _begin)
    elif parsed.get_backend_name() == "postgresql":
        sa.event.listen(engine, "begin", lambda connection: connection.execute(_TIMEOUTS))
    return engine


def _arguments(url: sa.URL) -> dict[str, Any]:
    """Return what is passed to the driver where `url` does not say otherwise."""
    known = _LIBPQ if url.get_driver_name() in ("psycopg", "psycopg2") else {}
    return {name: value for name, value in known.items() if name not in url.query}


def _make_file(database: str | None, setting: str, role: str) -> Path:
    """Make the file of a new SQLite database, for its owner's eyes alone; return where it is."""
    if not database or database == ":memory:" or database.startswith("file:"):
        raise SettingsError(f"{setting}: an SQLite store needs a file: sqlite:////absolute/path")
    path = Path(database).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
    except OSError as error:
        raise StoreError(f"{role} {path} cannot be opened: {error.strerror}") from None
    return path


def _open_what_is_there(dialect: sa.Dialect, _record: Any, arguments: Any, options: Any) -> Any:
    """Open an SQLite database: the driver alone would make the file anew where it has gone."""
    file = Path(arguments[0]).absolute().as_uri()
    return dialect.connect(f"{file}?mode=rw", **{**options, "uri": True})


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    """Take the lock for writing at once: one taken later can fail where two have begun to read."""
    write = connection.get_execution_options().get("vlinders_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
