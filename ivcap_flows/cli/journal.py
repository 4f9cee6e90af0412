"""`ivcap-flows journal`: restore the journal."""

from __future__ import annotations

from typing import Final

import cyclopts

from ivcap_flows.cli.output import Json, console, emit
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.cli.records import open_journal
from ivcap_flows.work.rebuild import rebuild as rebuilt

__all__ = ["app"]

app = cyclopts.App(name="journal", help="Restore a journal that was lost or has lost rows.")

_TIMEOUT: Final = 3600.0


@app.command
def rebuild(*, accept_loss: bool = False, as_json: Json = False) -> None:
    """Restore the account's orders and jobs into the journal, from their idempotency records on IVCAP.

    What the journal has already stays unchanged; a second call changes nothing. Runs and their records cannot be
    restored: a script that is started again has other keys of scope `run`, so it finds its earlier orders only with
    `reuse=True`.

    Args:
        accept_loss: Continue with a journal that has lost rows, which is refused otherwise. Requests in the lost rows
            that cannot be restored may be sent again. The loss is accepted even if the platform then cannot be asked.
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
        console.print(f"{told['foreign']} idempotency records are not of this account and were skipped.")
