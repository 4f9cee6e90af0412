"""Run by alembic: migrates the connection that the opening journal gives, in that connection's transaction."""

from alembic import context

from ivcap_flows.journal.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
