"""`ivcap-flows journal`: the journal itself."""

from __future__ import annotations

from typing import Annotated, Final

import cyclopts
from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, emit
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.cli.records import open_journal
from ivcap_flows.work.rebuild import rebuild as rebuilt

__all__ = ["app"]

app = cyclopts.App(name="journal", help="The journal: what can be restored of it.")

_TIMEOUT: Final = 3600.0


@app.command
def rebuild(*, accept_loss: Annotated[bool, Parameter(negative=())] = False, as_json: Json = False) -> None:
    """Restore orders and jobs of the account from their idempotency records, into a journal that does not know them.

    What it knows stays as it is, and again it changes nothing. Runs and what they made are lost with a journal: a
    script that is started again asks under other keys of scope `run`, so `reuse=True` is the way to its orders.

    Args:
        accept_loss: Go on with a journal that has lost rows, which is refused otherwise. What was asked for in them and
            is not restored may be sent again. It is accepted also where the platform then cannot be asked.
    """
    with open_journal(new=True, accept_loss=accept_loss) as journal:
        counts = ask_ivcap(lambda client: rebuilt(client, journal, accept_loss=accept_loss), timeout=_TIMEOUT)
        url = journal.url
    told = {name: counts[name] for name in ("restored", "known", "foreign")}
    if as_json:
        emit({"journal": url, **told})
        return
    console.print(f"{told['restored']} orders and jobs restored into {url}, {told['known']} known before.")
    if told["foreign"]:
        console.print(f"{told['foreign']} idempotency records are not of this account and were passed over.")
