"""`ivcap-flows verify RUN|PATH`: check that things still are as recorded."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ivcap_flows.blocks.configured_platforms import configured_platforms
from ivcap_flows.cli.output import Json, console, print_json, table
from ivcap_flows.cli.records import RUN_NAMES, open_journal
from ivcap_flows.errors import InputError, JournalError
from ivcap_flows.reading.findings import WRONG, Finding, is_wrong

__all__ = ["verify"]


What = Annotated[
    str,
    Parameter(
        help=f"A run: {RUN_NAMES}; or the path of a file, a folder, or an RO-Crate as a folder or zip file. A file "
        "that has the name of a run is `./latest`."
    ),
]


def verify(what: What, /, *, as_json: Json = False) -> int:
    """Check that a run, an RO-Crate or a file is still as recorded. Exit status 1 if not, or if a part is unreachable.

    Of a run, all files, artifacts and dataset files are hashed again, and aspects, orders, jobs, model runs and
    datasets are read again. Of an exported RO-Crate, all files are hashed again. Of any other file or folder, the
    command says whether its content is on record. Of a folder that is not on record as a whole, each file is looked up.
    """
    found = _verified(what)
    if as_json:
        print_json({"what": what, "wrong": is_wrong(found), "findings": found})
    else:
        _print(what, found)
    return int(is_wrong(found))


def _verified(what: str) -> list[Finding]:
    from ivcap_flows.reading.crate import is_crate, verify_crate
    from ivcap_flows.reading.names import is_path
    from ivcap_flows.reading.remote import Platforms
    from ivcap_flows.reading.verification import verify_path, verify_run

    path, run = Path(what), None
    crate = os.path.exists(what) and is_crate(path)
    try:
        with open_journal() as journal:
            if not is_path(journal, what):
                run = journal.runs.get(what)
            elif not crate:
                return verify_path(journal, what)
    except (InputError, JournalError) as error:
        # A crate needs no journal.
        if not crate:
            missing = "" if os.path.lexists(what) else f"There is no file {what}. "
            raise type(error)(f"{missing}{error}", **error.data) from error
    if run is None:
        return verify_crate(path)
    known = configured_platforms()
    with open_journal() as journal:
        return verify_run(journal, run, Platforms(known.ivcap, known.provena))


def _print(what: str, found: list[Finding]) -> None:
    counts = Counter(finding.state for finding in found)
    notable = [finding for finding in found if finding.state != "ok"]
    title = f"Not found as recorded: {what}" if is_wrong(found) else f"As recorded: {what}"
    if notable:
        rows = [(f.state, f.type, f.name or "", f.note or "", f.id) for f in sorted(notable, key=_order)]
        table(title, ("state", "what", "name", "note", "id"), rows)
    else:
        console.print(title)
    console.print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing to verify")


def _order(finding: Finding) -> int:
    return WRONG.index(finding.state) if finding.state in WRONG else len(WRONG)
