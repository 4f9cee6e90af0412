"""`ivcap-flows orders`: what runs have asked of the platforms, and what a user says of a doubt."""

from __future__ import annotations

from typing import Annotated, Final

import cyclopts
from cyclopts import Parameter

from ivcap_flows.cli import deciding, effects
from ivcap_flows.cli.deciding import find_intent
from ivcap_flows.cli.orphans import print_orphans
from ivcap_flows.cli.output import Json, console, emit, moment, table
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.cli.records import find_run, open_journal
from ivcap_flows.cli.why_not import print_why_not
from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal.states import OPEN
from ivcap_flows.work.candidates import Candidate, candidates_of
from ivcap_flows.work.kinds import KINDS

__all__ = ["app"]

app = cyclopts.App(name="orders", help="Orders and jobs on record, and what is in doubt.")

Flag = Annotated[bool, Parameter(negative=())]
_URN: Final = "urn:"


@app.default
def orders(*, run: str | None = None, open_only: bool = False, orphans: Flag = False, as_json: Json = False) -> None:
    """List orders and jobs, and whatever else is in doubt or was found twice, oldest first.

    Args:
        run: Only those of this run.
        open_only: Only those of which it is not known whether the platform has them.
        orphans: Only those that nobody waits for any more, since their flow was cancelled, killed or failed; with what
            they took so far, and what becomes of them. The platform is asked, also for those of other machines.
    """
    if orphans and (run or open_only):
        raise InputError("--orphans goes with neither --run nor --open-only.")
    with open_journal() as journal:
        if orphans:
            print_orphans(journal, as_json=as_json)
            return
        run_id = find_run(journal, run).id if run else None
        rows = journal.intents.where(run_id=run_id, limit=None)
    rows = [row for row in rows if row.state in OPEN or (not open_only and (row.noun in KINDS or row.duplicates))]
    if as_json:
        emit([effects.as_json(row) for row in rows])
    else:
        effects.print_effects("Orders and jobs", rows, full=True)


@app.command
def adopt(key: str, urn: str | None = None, /) -> None:
    """Say that an intent in doubt became this order, job, aspect, model run or message; or take over an orphan.

    An order or job that nobody waits for any more is then yours: `--orphans` names it no longer, and it goes on.

    Args:
        key: The key, or the beginning of it, as `orders` shows it.
        urn: The URN on the platform; of a message its id. An orphan has it already.
    """
    with open_journal() as journal:
        console.print(deciding.adopt(journal, find_intent(journal, key), urn))


@app.command(name="write-off")
def write_off(key: str, /) -> None:
    """Say that an intent in doubt had no effect, so that the next run that asks for it sends it again; or close the
    account of an orphan that ran to its end, which stays on record.

    Args:
        key: The key, or the beginning of it, as `orders` shows it.
    """
    with open_journal() as journal:
        console.print(deciding.write_off(journal, find_intent(journal, key)))


@app.command
def resolve(key: str, /, *, urn: str | None = None, none: Flag = False, as_json: Json = False) -> int:
    """End the doubt about an order or job: show what on the platform may be it, and decide. Status 1 while in doubt.

    Without a decision nothing is changed. `--urn` does what `adopt` does, `--none` what `write-off` does.

    Args:
        key: The key, or the beginning of it, as `orders` shows it.
        urn: It is this one.
        none: It is none of them: the next run that asks for it sends it again.
    """
    if urn is not None and none:
        raise InputError("Give --urn or --none, not both.")
    with open_journal() as journal:
        row = find_intent(journal, key)
        if urn is not None or none:
            console.print(deciding.adopt(journal, row, urn) if urn is not None else deciding.write_off(journal, row))
            return 0
        if row.state not in ("sent", "in_doubt") or row.noun not in KINDS:
            raise DurabilityError(
                f"The {row.noun} {row.key} is {row.state}; only an order or job in doubt is looked for."
            )
        held = journal.intents.held(row)
    found = ask_ivcap(lambda client: candidates_of(client, row, journal.redaction))
    if as_json:
        emit({"key": row.key, "held": held, "candidates": [vars(candidate) for candidate in found]})
    else:
        _print_candidates(row, found, held=held)
    return 1


@app.command(name="why-not")
def why_not(which: str, /, *, as_json: Json = False) -> None:
    """Say why an order or job was placed anew, and none of before was used.

    Args:
        which: The key, or the beginning of it, as `orders` shows it; or the URN of the order or job.
    """
    with open_journal() as journal:
        row = _placed(journal, which) if which.startswith(_URN) else find_intent(journal, which)
        if row.noun not in KINDS:
            raise InputError(f"{which} is a {row.noun}; only orders and jobs are placed anew or reused.")
        print_why_not(journal, row, as_json=as_json)


def _placed(journal: Journal, urn: str) -> IntentRow:
    """The intent that became this order or job; those that use it again come after the one that placed it."""
    rows = sorted(journal.intents.where(urn=urn), key=lambda row: row.how == "reused")
    if not rows:
        raise InputError(f"The journal {journal.url} did not place {urn}; ask where it was placed.")
    return rows[0]


def _print_candidates(row: IntentRow, found: list[Candidate], *, held: bool) -> None:
    title = f"What the {row.noun} {short_id(row.key)} for {row.subject}, asked {moment(row.created_at)}, may be"
    table(title, ("urn", "why", "status", "at"), [(c.urn, c.sign, c.status, moment(c.at)) for c in found])
    if held:
        console.print("A live process is at it and will decide by itself.")
        return
    again = f"ivcap-flows orders resolve {short_id(row.key)}"
    for candidate in found:
        console.print(f"It is this one:   {again} --urn {candidate.urn}")
    console.print(f"It is none:       {again} --none")
    console.print("A run that asks for it again looks by itself, and decides where one surely is it.", style="dim")
