"""Migrate a journal: alembic runs this on the connection of the journal that is being opened, in its transaction."""

from alembic import context

from ivcap_flows.journal.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
