"""The tables of the first published version. They are written out, since `schema` declares the newest ones."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    versioned, held = sa.text("version IS NOT NULL"), sa.text("process_id IS NOT NULL")
    op.create_table(
        "cursors",
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("behind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sink"),
    )
    op.create_table(
        "files",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("ctime_ns", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("path"),
    )
    op.create_table(
        "journal_info",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("key_check", sa.Text),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "polls",
        sa.Column("watchlist", sa.Text, nullable=False),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger, nullable=False),
        sa.Column("wanted", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("watchlist"),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "redaction_keys",
        sa.Column("journal_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("journal_id"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("short_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("flow_name", sa.Text, nullable=False),
        sa.Column("entry_point", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("parameters_sha256", sa.Text, nullable=False),
        sa.Column("deployed", sa.Boolean, nullable=False),
        sa.Column("deployment_id", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("missing_facts", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("runs_flow", "runs", ["flow_name", "seq"])
    op.create_index("runs_identity", "runs", ["flow_name", "code", "parameters_sha256", "seq"])
    op.create_index("runs_outcome", "runs", ["outcome", "updated_at"])
    op.create_index("runs_seq", "runs", ["seq"])
    op.create_index("runs_short_id", "runs", ["short_id"])
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("leads", sa.Boolean, nullable=False),
        sa.Column("flow_name", sa.Text, nullable=False),
        sa.Column("entry_point", sa.Text, nullable=False),
        sa.Column("flow_run_id", sa.Text, nullable=False),
        sa.Column("flow_run_name", sa.Text),
        sa.Column("root_flow_run_id", sa.Text, nullable=False),
        sa.Column("process_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("newest_at_end", sa.Integer),
        sa.Column("park", sa.Text),
        sa.ForeignKeyConstraint(["process_id"], ["processes.id"]),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("attempts_flow_run", "attempts", ["flow_run_id"])
    op.create_index("attempts_flow_run_name", "attempts", ["flow_run_name"])
    op.create_index("attempts_outcome", "attempts", ["outcome"])
    op.create_index("attempts_process", "attempts", ["process_id"])
    op.create_index("attempts_root_flow_run", "attempts", ["root_flow_run_id"])
    op.create_index("attempts_run", "attempts", ["run_id", "number"])
    op.create_index("attempts_seq", "attempts", ["seq"])
    op.create_table(
        "deliveries",
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_try", sa.BigInteger),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sink", "key"),
    )
    op.create_index("deliveries_run", "deliveries", ["run_id", "sink"])
    op.create_index("deliveries_state", "deliveries", ["sink", "state"])
    op.create_table(
        "facts",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("attempt_id", sa.Text),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("type", sa.Text),
        sa.Column("version", sa.Text),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("facts_record", "facts", ["record_id", "seq"])
    op.create_index(
        "facts_record_version", "facts", ["record_id", "version"], sqlite_where=versioned, postgresql_where=versioned
    )
    op.create_index("facts_run", "facts", ["run_id", "seq"])
    op.create_index("facts_source", "facts", ["source", "seq"])
    op.create_index("facts_target", "facts", ["target", "seq"])
    op.create_index(
        "facts_version", "facts", ["version", "record_id"], sqlite_where=versioned, postgresql_where=versioned
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("process_id", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("taken_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["process_id"], ["processes.id"]),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("leases_process", "leases", ["process_id"])
    op.create_table(
        "once",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name"),
    )
    op.create_table(
        "sendings",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
        sa.Column("sent_platform_time", sa.BigInteger),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "sink"),
    )
    op.create_table(
        "intents",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("base_key", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("noun", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("discriminator", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("spends", sa.Boolean, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("attempt_id", sa.Text),
        sa.Column("asked_attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("process_id", sa.Text),
        sa.Column("token", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("platform_time", sa.BigInteger),
        sa.Column("lingering", sa.Boolean, nullable=False),
        sa.Column("sent_again", sa.Boolean, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("urn", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("how", sa.Text),
        sa.Column("matched_by", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("duplicates", sa.Text, nullable=False),
        sa.Column("definition", sa.Text),
        sa.Column("reuse", sa.Text),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["process_id"], ["processes.id"]),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("intents_attempt", "intents", ["attempt_id"])
    op.create_index("intents_base_key", "intents", ["base_key", "generation"])
    op.create_index("intents_process", "intents", ["process_id"], sqlite_where=held, postgresql_where=held)
    op.create_index("intents_run", "intents", ["run_id"])
    op.create_index("intents_state", "intents", ["state", "noun"])
    op.create_index("intents_urn", "intents", ["urn"])
