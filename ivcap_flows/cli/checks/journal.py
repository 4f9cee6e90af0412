"""The journal: whether it can be written safely, and what in it waits for a decision."""

from __future__ import annotations

from ivcap_flows.cli.checks import Wrong
from ivcap_flows.cli.output import moment
from ivcap_flows.cli.records import open_journal
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow
from ivcap_flows.sinks.outbox import FAULT

__all__ = ["check_journal"]


def check_journal() -> list[str]:
    """Name the journal, its weaknesses, effects without a reply or with a second one, and refused deliveries."""
    with open_journal(new=True) as journal:
        in_doubt = [
            f"{_doubt(row)}; the next run that asks for it resolves it"
            for row in journal.intents.where(state="sent", limit=None)
        ]
        twice = [
            Wrong(
                f"made twice: {row.noun} for {row.subject} ({short_id(row.key)}): {row.urn} is kept; the platform "
                f"also has {', '.join(row.duplicates)}"
            )
            for row in journal.intents.where(only="twice", limit=None)
        ]
        refused = [
            f"refused by {row.sink}: run {row.run_id}: {row.reason}"
            for row in journal.deliveries.where(state="dead", limit=None)
        ]
        failed = [
            f"not delivered to {row.sink}: run {row.run_id}: {row.reason}"
            for row in journal.deliveries.where(state="pending", limit=None)
            if (row.reason or "").startswith(FAULT)
        ]
        exposure = journal.exposure()
        state = [journal.url, *map(Wrong, journal.weaknesses()), *([] if exposure is None else [exposure])]
        return [*state, *in_doubt, *twice, *refused, *failed]


def _doubt(row: IntentRow) -> str:
    name = f"{row.noun} for {row.subject} ({short_id(row.key)})"
    if row.urn is not None:
        return f"missing on the platform: {name}, {row.urn}"
    return f"no reply known: {name}, sent {moment(row.sent_at)}"
