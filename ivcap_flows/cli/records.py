"""What several commands share: access to the journal, the option that names a run, and what a record does not know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from cyclopts import Parameter

from ivcap_flows.errors import InputError
from ivcap_flows.in_prefect.events import emit
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Record
from ivcap_flows.secrets import scrub_text
from ivcap_flows.settings import Settings

__all__ = ["RUN_NAMES", "RunName", "open_journal", "read_journal", "unknowns"]

RUN_NAMES: Final = (
    "`latest`; the name of a flow, for its newest run; the name or id of a Prefect flow run; or the id of a run, its "
    "beginning or its end"
)
RunName = Annotated[str, Parameter(help=f"The run: {RUN_NAMES}.")]


def unknowns(activity: Record) -> Iterator[str]:
    """Yield what the record does not know about the files of an activity: each path, and what is unknown."""
    unknown = activity.attributes.get("unknown")
    for path, what in unknown.items() if isinstance(unknown, dict) else ():
        yield f"{path}: {what}"


@contextmanager
def read_journal() -> Iterator[Journal]:
    """Open the journal that the settings name, for a command that only reads; an empty one if there is none."""
    with Journal.or_empty(Settings().journal) as journal:
        journal.observe(emit)
        yield journal


def open_journal(*, new: bool = False) -> Journal:
    """Open the journal that the settings name.

    Raise InputError if it does not exist, unless `new` allows to create it: for a command that writes.
    """
    url = Settings().journal
    if not new and Journal.is_missing(url):
        raise InputError(
            f"There is no journal {scrub_text(url)}: no flow has run yet, or IVCAP_FLOWS_JOURNAL names another."
        )
    journal = Journal.open(url)
    journal.observe(emit)
    return journal
