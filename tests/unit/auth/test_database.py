"""Databases: opened anew where they may be replaced, given up where they are dead."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vllm_vlinders.database import Database
from vllm_vlinders.errors import SettingsError, StoreError


def asked(database: Database, statement: str, *, write: bool = False) -> Any:
    with database.transaction(write=write) as connection:
        return connection.execute(sa.text(statement))


def test_a_file_is_made_at_the_start_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a b#c.db"
    database = Database(f"sqlite:///{path}", "x.store", "the store")
    asked(database, "CREATE TABLE t (n)", write=True)
    assert [row[0] for row in sqlite3.connect(path).execute("SELECT name FROM sqlite_master")] == ["t"]
    first = database.file()
    other = tmp_path / "other.db"
    Database(f"sqlite:///{other}", "x.store", "the store")
    other.replace(path)
    assert database.file() != first
    with pytest.raises(StoreError, match="does not answer as it should: OperationalError"):
        asked(database, "INSERT INTO t VALUES (1)", write=True)
    path.unlink()
    with pytest.raises(StoreError, match="does not answer as it should: OperationalError"):
        asked(database, "CREATE TABLE t (n)", write=True)
    with pytest.raises(StoreError, match="the store .* cannot be opened: No such file"):
        database.file()
    assert not path.exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:/x?mode=rwc&uri=true"])
def test_a_database_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="x.store: an SQLite store needs a file"):
        Database(url, "x.store", "the store")


def test_a_dead_peer_and_a_hanging_statement_are_given_up(postgresql: str) -> None:
    database = Database(postgresql, "x.store", "the store")
    with database.transaction(write=False) as connection:
        driver: Any = connection.connection.driver_connection
        given = driver.info.get_parameters()
        limits = [connection.scalar(sa.text(f"SHOW {name}_timeout")) for name in ("statement", "lock")]
    idle, interval, count = (int(given[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert given["keepalives"] == "1"
    assert idle + interval * count <= 10
    assert given["tcp_user_timeout"] == "10000"
    assert limits == ["5s", "5s"]
    database.close()


def test_what_the_url_says_counts(postgresql: str) -> None:
    query = "?connect_timeout=30&keepalives_idle=9"
    database = Database(postgresql + query, "x.store", "the store")
    with database.transaction(write=False) as connection:
        driver: Any = connection.connection.driver_connection
        given = driver.info.get_parameters()
    assert (given["connect_timeout"], given["keepalives_idle"]) == ("30", "9")
    assert given["tcp_user_timeout"] == "10000"
    database.close()
