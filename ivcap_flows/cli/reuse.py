"""`ivcap-flows reuse`: what `reuse=True` finds."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Final

import cyclopts
from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, emit, moment, table
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.cli.records import open_journal
from ivcap_flows.durable.scan import Scanned
from ivcap_flows.durable.scan import scan as scanned
from ivcap_flows.errors import InputError
from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["app"]

app = cyclopts.App(name="reuse", help="Orders and jobs of before that `reuse=True` uses instead of paying again.")

_TIMEOUT: Final = 3600.0


@app.command
def scan(
    *,
    since: datetime,
    service: str | None = None,
    limit: int = 500,
    write: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> None:
    """Let `reuse=True` find orders and jobs that were not placed through ivcap-flows, or before it kept such marks.

    Without `--write` it only lists them. What is older than its service's definition stays out. Again it changes
    nothing.

    Args:
        since: Only what was asked for since then; without an offset in this machine's time.
        service: Only of this service, by name or URN.
        limit: Orders, and jobs, that are looked at, newest first.
        write: Write the aspects.
    """
    if limit < 1:
        raise InputError(f"At least one has to be looked at; --limit cannot be {limit}.")
    begin = since if since.tzinfo is not None else since.astimezone()

    async def ask(client: IvcapClient) -> list[Scanned]:
        walk = scanned(client, journal.redaction, since=begin, service=service, limit=limit, write=write)
        async with aclosing(walk) as walked:
            return [one async for one in walked]

    with open_journal(new=True) as journal:
        found = ask_ivcap(ask, timeout=_TIMEOUT)
    if as_json:
        emit([vars(one) for one in found])
        return
    columns = ("what", "of", "asked", "urn", "verdict")
    table("Succeeded", columns, [(o.noun, o.service or "", moment(o.at), o.urn, o.verdict) for o in found])
    if Counter(one.verdict for one in found)["to be marked"]:
        console.print("Nothing was written; `--write` does.")
