"""Tables of waiting: who asks the platform, who watches what, what was seen, how long such work takes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lookouts",
        sa.Column("watchlist", sa.Text, primary_key=True),
        sa.Column("process_id", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("trouble", sa.Text),
    )
    op.create_table(
        "watches",
        sa.Column("watchlist", sa.Text, primary_key=True),
        sa.Column("watcher", sa.Text, primary_key=True),
        sa.Column("urn", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("process_id", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.BigInteger),
    )
    op.create_index("watches_since", "watches", ["watchlist", "since"])
    op.create_table(
        "sightings",
        sa.Column("watchlist", sa.Text, primary_key=True),
        sa.Column("urn", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_index("sightings_seen_at", "sightings", ["watchlist", "seen_at"])
    op.create_table(
        "paces",
        sa.Column("watchlist", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("seconds", sa.Text, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
