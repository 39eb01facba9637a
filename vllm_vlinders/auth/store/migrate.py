"""Brings a database to the newest of `migrations`, with Alembic."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

VERSION_TABLE = "vlinders_version"
_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 0x766C696E64657273  # "vlinders"


def bring_up_to_date(connection: sa.Connection, *, check_only: bool = False) -> bool:
    """Run the migrations that `connection`'s database has not seen; return whether there were none.

    One process does it at a time: an advisory lock in PostgreSQL, the lock for writing in SQLite.

    Args:
        connection: inside a transaction, which the caller commits.
        check_only: change nothing.
    """
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    if not check_only and connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    newest = ScriptDirectory.from_config(config).get_current_head()
    current = context.get_current_revision() == newest
    if not current and not check_only:
        command.upgrade(config, "head")
    return current
