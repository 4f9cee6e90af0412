"""The table of parking: which runs left their process, what they wait for, when they wake."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "parks",
        sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("attempt_id", sa.Text, sa.ForeignKey("attempts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("flow_run_id", sa.Text, nullable=False),
        sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id"), nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("credentials", sa.Text),
        sa.Column("waits", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("parked_at", sa.BigInteger, nullable=False),
        sa.Column("wake_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )
    op.create_index("parks_state", "parks", ["state"])
