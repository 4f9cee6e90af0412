"""Access of commands to the journal, and the option by which a user names a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ivcap_flows.capture.events import emit
from ivcap_flows.errors import InputError
from ivcap_flows.journal import Journal
from ivcap_flows.settings import Settings

__all__ = ["RUN_NAMES", "RunName", "open_journal"]

RUN_NAMES: Final = (
    "`latest`; the name of a flow, for its newest run; the name or id of a Prefect flow run; or the id of a run, its "
    "beginning or its end"
)
RunName = Annotated[str, Parameter(help=f"The run: {RUN_NAMES}.")]


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
