"""`ivcap-flows journal`: the journal itself."""

from __future__ import annotations

from typing import Final

import cyclopts

from ivcap_flows.cli.output import Json, console, emit
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.cli.records import open_journal
from ivcap_flows.durable.rebuild import rebuild as rebuilt

__all__ = ["app"]

app = cyclopts.App(name="journal", help="The journal: what can be restored of it.")

_PATIENCE: Final = 3600.0


@app.command
def rebuild(*, as_json: Json = False) -> None:
    """Restore orders and jobs of the account from their key aspects, into a journal that does not know them.

    What it knows stays as it is, and again it changes nothing. Runs and what they made are lost with a journal: a
    script that is started again asks under other keys of scope `run`, so `reuse=True` is the way to its orders.
    """
    with open_journal(new=True) as journal:
        counts = ask_ivcap(lambda client: rebuilt(client, journal), patience=_PATIENCE)
        url = journal.url
    told = {name: counts[name] for name in ("restored", "known", "foreign")}
    if as_json:
        emit({"journal": url, **told})
        return
    console.print(f"{told['restored']} orders and jobs restored into {url}, {told['known']} known before.")
    if told["foreign"]:
        console.print(f"{told['foreign']} key aspects are not of this account and were passed over.")
