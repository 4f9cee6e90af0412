"""Access of commands to the journal, and to a run by any name that the user gives it."""

from __future__ import annotations

from pathlib import Path

from ivcap_flows.capture.events import emit
from ivcap_flows.errors import InputError
from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.settings import Settings

__all__ = ["find_run", "open_journal"]


def open_journal(*, new: bool = False, accept_loss: bool = False) -> Journal:
    """Open the journal that the settings name.

    Raise InputError if it does not exist, unless `new` allows to create it. Raise JournalLossError if it has lost rows,
    unless `accept_loss` is set.
    """
    url = Settings().journal
    place = url.partition("sqlite:///")[2]
    is_file = bool(place) and not place.startswith((":memory:", "file:"))
    if is_file and not new and not Path(place).expanduser().exists():
        raise InputError(f"There is no journal {url}: no flow has run yet, or IVCAP_FLOWS_JOURNAL names another.")
    journal = Journal.open(url, accept_loss=accept_loss)
    journal.observe(emit)
    return journal


def find_run(journal: Journal, name: str) -> RunRow:
    """Return a run by its id or the beginning of it, by the id of one of its Prefect flow runs, or by `latest`."""
    if name != "latest":
        return journal.runs.get(name)
    newest = journal.runs.recent(1)
    if not newest:
        raise InputError(f"The journal {journal.url} has no run yet.")
    return newest[0]
