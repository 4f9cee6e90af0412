"""What commands read from the journal: a run by what the user calls it."""

from __future__ import annotations

from pathlib import Path

from ivcap_flows.errors import InputError
from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.settings import Settings

__all__ = ["find_run", "open_journal"]


def open_journal(*, new: bool = False, accept_loss: bool = False) -> Journal:
    """The journal that the settings name; InputError where it is not there, unless it may be `new`, JournalLossError
    where it has lost rows, unless the user has said to `accept_loss`."""
    url = Settings().journal
    place = url.partition("sqlite:///")[2]
    is_file = bool(place) and not place.startswith((":memory:", "file:"))
    if is_file and not new and not Path(place).expanduser().exists():
        raise InputError(f"There is no journal {url}: nothing was run yet, or IVCAP_FLOWS_JOURNAL names another.")
    return Journal.open(url, accept_loss=accept_loss)


def find_run(journal: Journal, name: str) -> RunRow:
    """A run by id, by the beginning of it, by a Prefect flow run's id, or `latest`."""
    if name != "latest":
        return journal.runs.get(name)
    newest = journal.runs.recent(1)
    if not newest:
        raise InputError(f"The journal {journal.url} has no run yet.")
    return newest[0]
