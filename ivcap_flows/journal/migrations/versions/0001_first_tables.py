"""The tables of the first published version.

Until it is published, they are those that the code declares. A later version adds revisions of its own.
"""

from alembic import op

from ivcap_flows.journal.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)
