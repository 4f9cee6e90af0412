"""`ivcap-flows orders`: list the effects that runs requested, and let the user decide those in doubt."""

from __future__ import annotations

from typing import Final

import cyclopts

from ivcap_flows.cli import deciding, effects, forgetting
from ivcap_flows.cli.deciding import find_intent
from ivcap_flows.cli.orphans import print_orphans
from ivcap_flows.cli.output import AtLeastOne, Full, Json, console, moment, print_json, table
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.cli.records import open_journal
from ivcap_flows.cli.why_not import print_why_not
from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal.states import OPEN
from ivcap_flows.work.candidates import Candidate, candidates_of
from ivcap_flows.work.kinds import KINDS

__all__ = ["app"]

app = cyclopts.App(name="orders", help="List the orders and jobs on record, and decide what is in doubt.")

_URN: Final = "urn:"


@app.default
def orders(
    *,
    limit: AtLeastOne | None = None,
    run: str | None = None,
    open_only: bool = False,
    orphans: bool = False,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """List orders and jobs, and any other effect that is in doubt or was found twice, oldest first.

    Args:
        limit: List only the newest, this number of them.
        run: List only those of this run, which `show` takes by the same names.
        open_only: List only those of which it is not known whether the platform has them.
        orphans: List only those that nobody waits for any more, because their flow was cancelled, killed or failed,
            with the hours that each has taken and what happens to it next. This asks the platform, and so includes
            orphans of other machines.
    """
    if orphans and (run or open_only or limit):
        raise InputError("--orphans cannot be combined with --run, --open-only or --limit.")
    with open_journal() as journal:
        if orphans:
            print_orphans(journal, as_json=as_json)
            return
        run_id = journal.runs.get(run).id if run else None
        rows = journal.intents.where(run_id=run_id, limit=None)
    rows = [row for row in rows if row.state in OPEN or (not open_only and (row.noun in KINDS or row.duplicates))]
    rows = rows[-limit:] if limit else rows
    if as_json:
        print_json([effects.as_json(row) for row in rows])
    else:
        effects.print_effects("Orders and jobs", rows, full=full)


@app.command
def adopt(key: str, /) -> None:
    """Take over an orphan: it continues to run, and `--orphans` no longer lists it.

    Args:
        key: Key of the order or job or its beginning, as `orders` shows it.
    """
    with open_journal() as journal:
        console.print(deciding.adopt(journal, find_intent(journal, key)))


@app.command(name="write-off")
def write_off(key: str, /) -> None:
    """Close an orphan that has ended. It stays on record.

    Args:
        key: Key of the order or job or its beginning, as `orders` shows it.
    """
    with open_journal() as journal:
        console.print(deciding.write_off(journal, find_intent(journal, key)))


@app.command
def forget(key: str, /) -> None:
    """Forget an order, job, aspect, model run, dataset or registry item that the platform has lost.

    The next run that asks for it requests it again, and pays again. The platform is asked first, with the account that
    made it: what it has is not forgotten. An upload that is missing is made again without this.

    Args:
        key: Key of the intent or its beginning, as `orders` shows it.
    """
    with open_journal() as journal:
        console.print(forgetting.forget(journal, find_intent(journal, key)))


@app.command
def resolve(key: str, /, *, urn: str | None = None, none: bool = False, as_json: Json = False) -> int:
    """Decide what became of a request in doubt, or list what it may be. Exit status 1 while it is in doubt.

    Without `--urn` and `--none`, the command lists what on the platform may be an order or job in doubt, and changes
    nothing. With them it decides on any request, without a look at the platform.

    Args:
        key: Key of the intent or its beginning, as `orders` shows it.
        urn: It became the order, job, aspect or model run with this URN, or the message with this id.
        none: It had no effect: the next run that asks for it sends it again.
    """
    if urn is not None and none:
        raise InputError("Give either --urn or --none.")
    with open_journal() as journal:
        row = find_intent(journal, key)
        if urn is not None or none:
            console.print(deciding.resolve(journal, row, urn))
            return 0
        if row.state != "sent" or row.noun not in KINDS:
            raise DurabilityError(
                f"The {row.noun} {row.key} is {row.standing}; only an order or job in doubt can be resolved."
            )
        held = journal.intents.held(row)
    found = ask_ivcap(lambda client: candidates_of(client, row, journal.redaction))
    if as_json:
        print_json({"key": row.key, "held": held, "candidates": [vars(candidate) for candidate in found]})
    else:
        _print_candidates(row, found, held=held)
    return 1


@app.command(name="why-not")
def why_not(which: str, /, *, as_json: Json = False) -> None:
    """Explain why an order or job was placed anew, and no earlier one was reused.

    Args:
        which: Key or its beginning, as `orders` shows it; or the URN of the order or job.
    """
    with open_journal() as journal:
        row = _placed(journal, which) if which.startswith(_URN) else find_intent(journal, which)
        if row.noun not in KINDS:
            raise InputError(f"{which} is of the kind {row.noun}; only orders and jobs are placed anew or reused.")
        print_why_not(journal, row, as_json=as_json)


def _placed(journal: Journal, urn: str) -> IntentRow:
    """Return the intent that placed this order or job, rather than one that reused it. Raise InputError if none did."""
    rows = sorted(journal.intents.where(urn=urn), key=lambda row: row.how == "reused")
    if not rows:
        raise InputError(f"The journal {journal.url} did not place {urn}; use the journal that did.")
    return rows[0]


def _print_candidates(row: IntentRow, found: list[Candidate], *, held: bool) -> None:
    title = f"Candidates for the {row.noun} {short_id(row.key)} for {row.subject}, requested {moment(row.created_at)}"
    table(title, ("urn", "why", "status", "at"), [(c.urn, c.sign, c.status, c.at) for c in found], full=True)
    if held:
        console.print("A live process is working on it and will decide.")
        return
    again = f"ivcap-flows orders resolve {short_id(row.key)}"
    for candidate in found:
        console.print(f"It is this one:   {again} --urn {candidate.urn}")
    console.print(f"It is none:       {again} --none")
    console.print("A run that asks for it again looks for it, too, and adopts a certain candidate.", style="dim")
