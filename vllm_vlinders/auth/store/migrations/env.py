"""What Alembic runs: the migrations, on the connection and in the transaction it is given."""

from alembic import context

from vllm_vlinders.auth.store.migrate import VERSION_TABLE
from vllm_vlinders.auth.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
context.run_migrations()
