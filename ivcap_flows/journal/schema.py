"""The tables of a journal. Imported only when a journal is opened."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

__all__ = [
    "Instant",
    "Json",
    "accounts",
    "attempts",
    "cursors",
    "deliveries",
    "facts",
    "files",
    "intents",
    "journal_info",
    "leases",
    "metadata",
    "once",
    "polls",
    "processes",
    "redaction_keys",
    "runs",
    "sendings",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Instant(TypeDecorator[datetime]):
    """A column of moments as whole microseconds since 1970, which both databases store and sort exactly."""

    impl = sa.BigInteger
    cache_ok = True

    @staticmethod
    def stored(value: datetime) -> int:
        """Return the column's value for a moment."""
        return (value - _EPOCH) // timedelta(microseconds=1)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else self.stored(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Json(TypeDecorator[Any]):
    """A column of JSON values as ASCII text, since PostgreSQL's JSON type refuses some characters of users' texts."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = sa.MetaData()

journal_info = sa.Table(
    "journal_info",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # The number of the tables' revision; see `revisions`.
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    # SQLite: a digest that identifies the key in the key file. Without a value, no key was needed yet.
    sa.Column("key_check", sa.Text),
    # Set while the journal may not be used: `to` says where it was moved, `from` whence it is being moved here, and
    # both ends of a move have its `id`.
    sa.Column("mark", Json),
    # The first revision whose code may use these tables, and the version of the package that has it.
    sa.Column("readable_from", Json),
)

# PostgreSQL only. A separate table, so that a role may read the others without this one.
redaction_keys = sa.Table(
    "redaction_keys",
    metadata,
    sa.Column("journal_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
)

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("heartbeat_at", Instant, nullable=False),
    # What identifies the file that the process has locked, or that it was proven dead by it. Without a value, only its
    # heartbeat is known.
    sa.Column("lock", sa.Text),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # The end of the id, by which people name the run; an index finds no end.
    sa.Column("short_id", sa.Text, nullable=False),
    # The order in which the runs began, since clocks may be set back. `Store.numbered` assigns it.
    sa.Column("seq", sa.BigInteger, sa.Identity(), nullable=False),
    sa.Column("flow_name", sa.Text, nullable=False),
    sa.Column("entry_point", sa.Text, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("parameters_sha256", sa.Text, nullable=False),
    sa.Column("given_sha256", sa.Text),
    sa.Column("deployed", sa.Boolean, nullable=False),
    sa.Column("deployment_id", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("missing_facts", sa.BigInteger, nullable=False),
    sa.Index("runs_identity", "flow_name", "code", "parameters_sha256", "seq"),
    sa.Index("runs_short_id", "short_id"),
    sa.Index("runs_seq", "seq"),
    sa.Index("runs_flow", "flow_name", "seq"),
    sa.Index("runs_outcome", "outcome", "updated_at"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, sa.Identity(), nullable=False),
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("leads", sa.Boolean, nullable=False),
    sa.Column("flow_name", sa.Text, nullable=False),
    sa.Column("entry_point", sa.Text, nullable=False),
    sa.Column("flow_run_id", sa.Text, nullable=False),
    sa.Column("flow_run_name", sa.Text),
    sa.Column("root_flow_run_id", sa.Text, nullable=False),
    sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id"), nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("cause", sa.Text),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    # The number of the run's newest attempt when this one ended: this one ran beside it, and before all later ones.
    sa.Column("newest_at_end", sa.Integer),
    # What the run waits for that left this attempt's process.
    sa.Column("park", Json),
    sa.Index("attempts_seq", "seq"),
    sa.Index("attempts_run", "run_id", "number"),
    sa.Index("attempts_root_flow_run", "root_flow_run_id"),
    sa.Index("attempts_flow_run", "flow_run_id"),
    sa.Index("attempts_flow_run_name", "flow_run_name"),
    sa.Index("attempts_outcome", "outcome"),
    sa.Index("attempts_process", "process_id"),
)

_HELD: Final = sa.text("process_id IS NOT NULL")

intents = sa.Table(
    "intents",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("base_key", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("noun", sa.Text, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("request", Json, nullable=False),
    sa.Column("discriminator", sa.Text),
    sa.Column("subject", sa.Text),
    # The user's name for the effect; not a part of the key.
    sa.Column("name", sa.Text),
    sa.Column("spends", sa.Boolean, nullable=False),
    # An intent outlives its run: keys of scope flow or account are never deleted.
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="SET NULL")),
    sa.Column("attempt_id", sa.Text, sa.ForeignKey("attempts.id", ondelete="SET NULL")),
    sa.Column("asked_attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id")),
    sa.Column("token", sa.Text),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("sent_at", Instant),
    # By the platform's clock: a time before the first request could leave.
    sa.Column("platform_time", Instant),
    # The holder only seems dead, so a request that it has marked as sent may still leave.
    sa.Column("lingering", sa.Boolean, nullable=False),
    # After a doubt: the first request may show its effect later.
    sa.Column("sent_again", sa.Boolean, nullable=False),
    sa.Column("progress", Json),
    sa.Column("urn", sa.Text),
    sa.Column("outcome", Json),
    sa.Column("how", sa.Text),
    sa.Column("matched_by", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("duplicates", Json, nullable=False),
    sa.Column("definition", sa.Text),
    sa.Column("reuse", sa.Text),
    sa.Index("intents_base_key", "base_key", "generation"),
    sa.Index("intents_run", "run_id"),
    sa.Index("intents_attempt", "attempt_id"),
    sa.Index("intents_process", "process_id", sqlite_where=_HELD, postgresql_where=_HELD),
    sa.Index("intents_state", "state", "noun"),
    sa.Index("intents_urn", "urn"),
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    # The name by which the credentials are known in each attempt of the run.
    sa.Column("credentials", sa.Text, primary_key=True),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
)

once = sa.Table(
    "once",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
)

_VERSIONED: Final = sa.text("version IS NOT NULL")

facts = sa.Table(
    "facts",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    # No foreign key: an attempt is deleted with its run, and so are its facts. Each deleted attempt would search them.
    sa.Column("attempt_id", sa.Text),
    sa.Column("recorded_at", Instant, nullable=False),
    sa.Column("record_id", sa.Text, nullable=False),
    sa.Column("source", sa.Text),
    sa.Column("target", sa.Text),
    sa.Column("record", sa.Text, nullable=False),
    sa.Column("type", sa.Text),
    # The sha256 of an entity's content, or the commit of code. It identifies a thing beside its id.
    sa.Column("version", sa.Text),
    sa.Index("facts_run", "run_id", "seq"),
    sa.Index("facts_record", "record_id", "seq"),
    sa.Index("facts_source", "source", "seq"),
    sa.Index("facts_target", "target", "seq"),
    sa.Index("facts_version", "version", "record_id", sqlite_where=_VERSIONED, postgresql_where=_VERSIONED),
    sa.Index("facts_record_version", "record_id", "version", sqlite_where=_VERSIONED, postgresql_where=_VERSIONED),
    sqlite_autoincrement=True,
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE")),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_try", Instant),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Index("deliveries_state", "sink", "state"),
    sa.Index("deliveries_run", "run_id", "sink"),
)

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("behind", Json, nullable=False),
)

sendings = sa.Table(
    "sendings",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sink", sa.Text, primary_key=True),
    sa.Column("sent_at", Instant, nullable=False),
    sa.Column("sent_platform_time", Instant),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("process_id", sa.Text, sa.ForeignKey("processes.id"), nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("taken_at", Instant, nullable=False),
    sa.Index("leases_process", "process_id"),
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("ctime_ns", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
)

# Its rows may be lost without harm: the processes that wait add to them again.
polls = sa.Table(
    "polls",
    metadata,
    sa.Column("watchlist", sa.Text, primary_key=True),
    sa.Column("begun", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.BigInteger, nullable=False),
    sa.Column("wanted", Json, nullable=False),
)
