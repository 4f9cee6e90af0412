"""`ivcap-flows verify RUN|PATH`: check that things still are as recorded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, emit, table
from ivcap_flows.cli.platform import elsewhere
from ivcap_flows.cli.records import RUN_NAMES, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.reading.findings import WRONG, Finding, is_wrong

__all__ = ["verify"]


What = Annotated[
    str,
    Parameter(help=f"A run: {RUN_NAMES}; or the path of a file, or of an RO-Crate as a folder or zip file."),
]


def verify(what: What, /, *, as_json: Json = False) -> int:
    """Check that a run, an RO-Crate or a file is still as recorded. Exit status 1 if not, or if a part is unreachable.

    Of a run, all files, artifacts and dataset files are hashed again, and aspects, orders, jobs, model runs and
    datasets are read again. Of an exported RO-Crate, all files are hashed again. Of any other file, the command says
    whether its content is on record.
    """
    found = _verified(what)
    if as_json:
        emit({"what": what, "wrong": is_wrong(found), "findings": found})
    else:
        _print(what, found)
    return int(is_wrong(found))


def _verified(what: str) -> list[Finding]:
    from ivcap_flows.reading.crate import is_crate, verify_crate
    from ivcap_flows.reading.remote import Platforms
    from ivcap_flows.reading.verification import verify_file, verify_run

    path = Path(what)
    if path.exists() and is_crate(path):
        return verify_crate(path)
    if not path.exists() and (path.suffix or path.name != what):
        raise InputError(f"There is no file {what}.")
    with open_journal() as journal:
        if path.is_file():
            return [verify_file(journal, path)]
        if path.is_dir():
            raise InputError(f"{what} is a folder without ro-crate-metadata.json. Name a run, a file or an RO-Crate.")
        known = elsewhere()
        return verify_run(journal, journal.runs.get(what), Platforms(known.ivcap, known.provena))


def _print(what: str, found: list[Finding]) -> None:
    counts = Counter(finding.state for finding in found)
    told = [finding for finding in found if finding.state != "ok"]
    title = f"Not found as recorded: {what}" if is_wrong(found) else f"As recorded: {what}"
    if told:
        rows = [(f.state, f.type, f.name or "", f.note or "", f.id) for f in sorted(told, key=_order)]
        table(title, ("state", "what", "name", "note", "id"), rows)
    else:
        console.print(title)
    console.print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing to verify")


def _order(finding: Finding) -> int:
    return WRONG.index(finding.state) if finding.state in WRONG else len(WRONG)
