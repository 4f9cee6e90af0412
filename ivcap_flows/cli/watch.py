"""`ivcap-flows watch`: wake parked runs as soon as what they wait for has ended."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ivcap_flows import loop
from ivcap_flows.cli.output import console
from ivcap_flows.cli.records import open_journal

__all__ = ["watch"]


def watch(*, once: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Wake the parked runs of this journal as soon as all that they wait for has ended, until interrupted.

    A parked run wakes by itself, too, only later: every quarter of an hour at the latest, every hour while this runs.
    Of several that run at once, one watches and the others stand by. It needs the journal, Prefect's API and the
    credentials of the flows.

    Args:
        once: Look once, wake what can be woken, and end.
    """
    from ivcap_flows.tasks.park_watcher import Watcher

    with open_journal(new=True) as journal:
        watcher = Watcher(journal, tell=console.print)
        if once:
            woken = loop.run(watcher.once())
            console.print(f"{woken} runs woken, {len(journal.parks.open())} parked.")
            return
        try:
            loop.run(watcher.watch())
        except KeyboardInterrupt:
            console.print("No longer watching; parked runs wake by themselves.")
