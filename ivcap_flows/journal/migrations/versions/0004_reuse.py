"""What reuse goes by: the definition of the service that an order or job was asked of, and what was found to use."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("intents", sa.Column("definition", sa.Text))
    op.add_column("intents", sa.Column("reuse", sa.Text))
