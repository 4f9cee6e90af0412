"""Code of a later revision, made up: `become(adds_only)` turns this process into one, for good.

As a program, it upgrades a journal, and only adds to its tables: `newer_code.py URL`.
"""

from __future__ import annotations

import sys

import sqlalchemy as sa
from alembic.operations import Operations

from ivcap_flows.journal import Journal, revisions, schema
from ivcap_flows.journal.revisions import Revision, altered


def _adds(op: Operations) -> None:
    op.create_table("notes", sa.Column("id", sa.Text, primary_key=True), sa.Column("text", sa.Text))
    with altered(op, "cursors") as table:
        table.add_column(sa.Column("note", sa.Text))
    op.create_index("files_sha256", "files", ["sha256"])


def _changes(op: Operations) -> None:
    # The table with a counter, and those that others refer to, so that SQLite copies each.
    with altered(op, "facts") as table:
        table.add_column(sa.Column("weight", sa.Text, nullable=False, server_default="0"))
    for name, column in (("facts", "record_id"), ("runs", "code"), ("processes", "host"), ("intents", "scope")):
        with altered(op, name) as table:
            table.alter_column(column, existing_type=sa.Text, nullable=True)


def become(adds_only: bool) -> None:
    if adds_only:
        sa.Table("notes", schema.metadata, sa.Column("id", sa.Text, primary_key=True), sa.Column("text", sa.Text))
        schema.cursors.append_column(sa.Column("note", sa.Text))
        sa.Index("files_sha256", schema.files.c.sha256)
    else:
        schema.facts.append_column(sa.Column("weight", sa.Text, nullable=False, server_default="0"))
        for column in (schema.facts.c.record_id, schema.runs.c.code, schema.processes.c.host, schema.intents.c.scope):
            column.nullable = True
    apply = _adds if adds_only else _changes
    revisions.REVISIONS.append(Revision(2, "0.2.0", adds_only, apply))


if __name__ == "__main__":
    become(adds_only=True)
    Journal.open(sys.argv[1]).close()
