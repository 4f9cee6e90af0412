"""The tables of the first published version.

Until that version is published, this revision creates the tables that `schema` declares. Later versions add revisions.
"""

from alembic import op

from ivcap_flows.journal.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)
