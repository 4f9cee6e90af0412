"""The output of `orders --orphans`: orders and jobs that nobody waits for."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ivcap_flows.cli.output import console, print_json, table
from ivcap_flows.cli.platform import ask_ivcap_if_there
from ivcap_flows.identity import short_id
from ivcap_flows.in_prefect.flow_run_states import ended_flow_runs
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Journal
from ivcap_flows.work.orphans import Orphan, as_rows, elsewhere, orphans_of, seen

__all__ = ["print_orphans"]

_COLUMNS: Final = ("what", "name", "of", "status", "since", "hours", "placed by", "run", "urn", "key")
_CANNOT_CANCEL: Final = "IVCAP has no call to cancel an order or a job: each runs to its end and is paid for."


def print_orphans(journal: Journal, *, as_json: bool) -> None:
    """Find orphans in the journal and, if it answers, on the platform, and print them."""
    here = orphans_of(journal, ended_flow_runs)

    async def ask(client: IvcapClient) -> tuple[list[Orphan], list[Orphan]]:
        return await seen(client, here), await elsewhere(client, journal)

    answer, failure = ask_ivcap_if_there(ask)
    mine, others = answer or (here, [])
    if as_json:
        print_json([{**vars(orphan), "hours": orphan.hours} for orphan in (*mine, *others)])
        return
    table("Orders and jobs that no live run waits for", _COLUMNS, [_row(orphan) for orphan in mine])
    for orphan in mine:
        console.print(f"{orphan.urn or short_id(orphan.key or '')}: {orphan.then}")
    if others:
        table("Of other journals, where a run may wait for them", _COLUMNS, [_row(orphan) for orphan in others])
    if failure is not None:
        console.print(f"The platform could not be asked for their status: {failure}", style="red")
    if mine or others:
        console.print(_CANNOT_CANCEL, style="dim")


def _row(orphan: Orphan) -> list[str | datetime | None]:
    [row] = as_rows([orphan])
    row["since"] = orphan.since
    row["hours"] = None if orphan.hours is None else str(orphan.hours)
    return [row[name] for name in _COLUMNS]
