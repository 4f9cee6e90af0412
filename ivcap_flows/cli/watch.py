"""`ivcap-flows watch`: wake parked runs as soon as the work that they wait for has ended."""

from __future__ import annotations

from typing import Final

from ivcap_flows import loop
from ivcap_flows.cli.output import console
from ivcap_flows.cli.records import open_journal

__all__ = ["watch"]

_RUNS: Final = 500
"""Paused runs that are counted at most."""


def watch(*, once: bool = False) -> None:
    """Wake each parked run of this journal as soon as all work that it waits for has ended, until interrupted.

    A run that was paused in Prefect is not parked: it waits for somebody who resumes it there.

    A parked run also wakes without this command, but later: at least every quarter of an hour, or every hour while the
    command watches runs of the same account. The command needs the journal, Prefect's API and the credentials of the
    flows: it loads the blocks that they name, and for all others its environment counts.

    Args:
        once: Look once, wake the runs that can be woken, and exit.
    """
    from ivcap_flows.tasks.park_watcher import Watcher

    with open_journal(new=True) as journal:
        watcher = Watcher(journal, tell=console.print)
        if once:
            woken, parked = loop.run(watcher.once())
            paused = len(journal.runs.recent(_RUNS, outcome="paused"))
            more = f" {paused} paused, which only Prefect resumes." if paused else ""
            console.print(f"{woken} runs woken, {parked} parked.{more}")
            return
        try:
            loop.run(watcher.watch())
        except KeyboardInterrupt:
            console.print("Stopped watching; parked runs wake at their scheduled times.")
