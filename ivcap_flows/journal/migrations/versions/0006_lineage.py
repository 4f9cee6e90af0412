"""What lineage goes by: the type of each fact, and the sha256 or the commit that a thing is known by as well."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_VALUES = {
    "sqlite": ("json_extract(record, '$.{}')", "json_extract(record, '$.attributes.{}')"),
    "postgresql": ("record::json ->> '{}'", "record::json #>> '{{attributes,{}}}'"),
}


def upgrade() -> None:
    op.add_column("facts", sa.Column("type", sa.Text))
    op.add_column("facts", sa.Column("mark", sa.Text))
    plain, inner = _VALUES[op.get_bind().dialect.name]
    sha256, commit = inner.format("sha256"), inner.format("commit")
    mark = f"CASE WHEN {plain.format('kind')} = 'entity' THEN coalesce({sha256}, {commit}) END"
    values = f"type = {plain.format('type')}, mark = {mark}"
    op.get_bind().exec_driver_sql(f"UPDATE facts SET {values}")  # noqa: S608 - all of it stands above
    marked = sa.text("mark IS NOT NULL")
    for name, columns in {"facts_mark": ["mark", "record_id"], "facts_record_mark": ["record_id", "mark"]}.items():
        op.create_index(name, "facts", columns, sqlite_where=marked, postgresql_where=marked)
