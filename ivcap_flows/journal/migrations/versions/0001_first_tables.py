"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "journal_info",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started", sa.Float, nullable=False),
        sa.Column("beat_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("flow_name", sa.Text, nullable=False),
        sa.Column("entry_point", sa.Text, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("parameters_sha256", sa.Text, nullable=False),
        sa.Column("deployed", sa.Boolean, nullable=False),
        sa.Column("deployment_id", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("missing_facts", sa.BigInteger, nullable=False),
    )
    op.create_index("runs_identity", "runs", ["entry_point", "parameters_sha256"])
    op.create_index("runs_created_at", "runs", ["created_at"])
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("leads", sa.Boolean, nullable=False),
        sa.Column("flow_name", sa.Text, nullable=False),
        sa.Column("flow_run_id", sa.Text, nullable=False),
        sa.Column("root_flow_run_id", sa.Text, nullable=False),
        sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id"), nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )
    op.create_index("attempts_run", "attempts", ["run_id", "number"])
    op.create_index("attempts_root_flow_run", "attempts", ["root_flow_run_id"])
    op.create_index("attempts_flow_run", "attempts", ["flow_run_id"])
    op.create_index("attempts_outcome", "attempts", ["outcome"])
    op.create_table(
        "intents",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("base_key", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("noun", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("discriminator", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("spends", sa.Boolean, nullable=False),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="SET NULL")),
        sa.Column("attempt_id", sa.Text, sa.ForeignKey("attempts.id", ondelete="SET NULL")),
        sa.Column("asked_attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id")),
        sa.Column("token", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("progress", sa.Text),
        sa.Column("urn", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("how", sa.Text),
        sa.Column("matched_by", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("duplicates", sa.Text, nullable=False),
    )
    op.create_index("intents_base_key", "intents", ["base_key", "generation"])
    op.create_index("intents_run", "intents", ["run_id"])
    op.create_index("intents_state", "intents", ["state", "noun"])
    op.create_index("intents_urn", "intents", ["urn"])
    op.create_table(
        "once",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "facts",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempt_id", sa.Text, sa.ForeignKey("attempts.id", ondelete="CASCADE")),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("target", sa.Text),
        sa.Column("record", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("facts_run", "facts", ["run_id", "seq"])
    op.create_index("facts_record", "facts", ["record_id", "seq"])
    op.create_index("facts_source", "facts", ["source", "seq"])
    op.create_index("facts_target", "facts", ["target", "seq"])
    op.create_table(
        "deliveries",
        sa.Column("sink", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE")),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_try", sa.BigInteger),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_index("deliveries_state", "deliveries", ["sink", "state"])
    op.create_index("deliveries_run", "deliveries", ["run_id"])
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id"), nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("taken_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "files",
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
    )
