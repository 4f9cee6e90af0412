"""`ivcap-flows orders`: list the effects that runs requested, and let the user decide those in doubt."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import cyclopts

from ivcap_flows.cli import deciding, effects
from ivcap_flows.cli.deciding import find_intent
from ivcap_flows.cli.effects import ASPECTS, ON_PROVENA
from ivcap_flows.cli.output import AtLeastOne, Full, Json, console, moment, print_json, table
from ivcap_flows.cli.platform import ask_ivcap, ask_ivcap_if_there, in_time, ivcap, provena
from ivcap_flows.cli.records import open_journal
from ivcap_flows.errors import DurabilityError, ForbiddenError, InputError, NotFoundError
from ivcap_flows.identity import INTENT_SCHEMA, fingerprint_for_reuse, key_entity, short_id, short_run
from ivcap_flows.in_prefect.flow_run_states import ended_flow_runs
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal.states import OPEN
from ivcap_flows.work.candidates import Candidate, candidates_of
from ivcap_flows.work.kinds import KINDS
from ivcap_flows.work.orphans import Orphan, all_orphans, as_rows
from ivcap_flows.work.reuse import Earlier, earlier_of
from ivcap_flows.work.why_not import Against, against, earlier_rows

__all__ = ["app", "forget_effect"]

app = cyclopts.App(name="orders", help="List the orders and jobs on record, and decide what is in doubt.")

_URN: Final = "urn:"
_COLUMNS: Final = ("what", "name", "of", "status", "since", "hours", "placed by", "run", "urn", "key")
_CANNOT_CANCEL: Final = "IVCAP has no call to cancel an order or a job: each runs to its end and is paid for."
_DIFFERENCES: Final = 3


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
            _print_orphans(journal, as_json=as_json)
            return
        run_id = journal.runs.get(run).id if run else None
        rows = journal.intents.where(run_id=run_id, limit=None)
    if open_only:
        rows = [row for row in rows if row.state == "sent"]
    else:
        rows = [row for row in rows if row.state in OPEN or row.noun in KINDS or row.duplicates]
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
        console.print(forget_effect(journal, find_intent(journal, key)))


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
        if row.state != "sent":
            raise DurabilityError(
                f"The {row.noun} {row.key} is {row.standing} and not in doubt: there is nothing to list.", key=row.key
            )
        if row.noun not in KINDS:
            way = deciding.way(row)
            raise DurabilityError(f"Candidates can be listed only for orders and jobs. {way}", key=row.key)
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
        _print_why_not(journal, row, as_json=as_json)


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


def _print_orphans(journal: Journal, *, as_json: bool) -> None:
    """Find orphans in the journal and, if it answers, on the platform, and print them."""
    mine, others, failure = all_orphans(journal, ended_flow_runs, ask_ivcap)
    if as_json:
        print_json([{**vars(orphan), "hours": orphan.hours} for orphan in (*mine, *others)])
        return
    table("Orders and jobs that no live run waits for", _COLUMNS, [_orphan_row(orphan) for orphan in mine])
    for orphan in mine:
        console.print(f"{orphan.urn or short_id(orphan.key or '')}: {orphan.then}")
    if others:
        table("Of other journals, where a run may wait for them", _COLUMNS, [_orphan_row(orphan) for orphan in others])
    if failure is not None:
        console.print(f"The platform could not be asked for their status: {failure}", style="red")
    if mine or others:
        console.print(_CANNOT_CANCEL, style="dim")


def _orphan_row(orphan: Orphan) -> list[str | datetime | None]:
    [row] = as_rows([orphan])
    row["since"] = orphan.since
    row["hours"] = None if orphan.hours is None else str(orphan.hours)
    return [row[name] for name in _COLUMNS]


def forget_effect(journal: Journal, row: IntentRow) -> str:
    """Forget an effect that its own account does not find on its platform, and return a message for the user.

    Raise InputError for an effect of another kind or account, and DurabilityError if there is nothing to forget, if the
    platform has it, and if the platform may not show it yet.
    """
    name = f"{row.noun} {short_id(row.key)}"
    if row.noun == "upload":
        raise InputError(
            f"The {name} needs no forgetting: once a request found its artifact missing, the next upload of the same "
            "content looks for it, and sends it again if the platform has lost it."
        )
    if row.noun not in (*KINDS, *ASPECTS, *ON_PROVENA):
        raise InputError(f"A {row.noun} cannot be looked up, so it cannot be forgotten.")
    if row.state != "done":
        raise DurabilityError(f"The {name} is {row.standing}: the journal has no effect of it to forget.", key=row.key)
    on_provena = row.noun in ON_PROVENA
    place, delay, there = in_time("Provena", _on_provena(row)) if on_provena else in_time("IVCAP", _on_ivcap(row))
    if place != (row.platform, row.account):
        raise InputError(
            f"The {name} is of the account {row.account} on {row.platform}, and these credentials are of {place[1]} on "
            f"{place[0]}, which may not see it. Give those credentials."
        )
    if there:
        raise DurabilityError(f"The platform has {row.urn}, so the {name} is not forgotten.", key=row.key)
    if (journal.now() - row.updated_at).total_seconds() < delay:
        raise DurabilityError(
            f"The platform may show {row.urn} only {delay:g} s after it was made. Try again then.", key=row.key
        )
    journal.decisions.forget(row.key)
    paid = " and pays for it" if row.spends else ""
    return (
        f"{name} is forgotten: {row.urn} is not on the platform. The next run that asks for it requests it again{paid}."
    )


async def _on_ivcap(row: IntentRow) -> tuple[tuple[str, str], float, bool]:
    """Return the place that was asked, its visibility delay, and whether it has the effect."""
    client = await ivcap()
    place, urn = (await client.platform(), await client.account()), str(row.urn)
    try:
        if row.noun in KINDS:
            await KINDS[row.noun].read(client, urn, row.request["service"])
        else:
            await client.aspects.read(urn)
    except NotFoundError:
        return place, client.visibility_delay, False
    return place, client.visibility_delay, True


async def _on_provena(row: IntentRow) -> tuple[tuple[str, str], float, bool]:
    """Return the place that was asked, its visibility delay, and whether it has the handle."""
    client = await provena()
    place = await client.platform(), await client.username()
    try:
        await client.registry.fetch_any(str(row.urn))
    except NotFoundError:
        return place, client.visibility_delay, False
    return place, client.visibility_delay, True


def _print_why_not(journal: Journal, row: IntentRow, *, as_json: bool) -> None:
    """Print how an intent differs from earlier ones in this journal, and which equal ones of others IVCAP knows."""
    rows = journal.intents.where(noun=row.noun, limit=None)
    found = [against(row, other) for other in earlier_rows(row, rows)]
    known = {other.urn for other in rows}

    async def ask(client: IvcapClient) -> tuple[list[Earlier], str]:
        return await _elsewhere(client, row, known)

    answer, failure = ask_ivcap_if_there(ask)
    elsewhere, note = answer or ([], f"The platform was not asked: {failure}")
    if as_json:
        print_json(
            {
                "key": row.key,
                "urn": row.urn,
                "how": row.how,
                "answer": _why(row),
                "scope": row.scope,
                "discriminator": row.discriminator,
                "generation": row.generation,
                "definition": row.definition,
                "earlier": [asdict(one) for one in found],
                "elsewhere": [asdict(one) for one in elsewhere],
                "platform": note,
            }
        )
        return
    console.print(f"{row.noun} {short_id(row.key)} for {row.subject}: {row.urn or row.standing}")
    console.print(_why(row))
    for one in found:
        _print_difference(one)
    if not found:
        console.print(f"This journal has no earlier {row.noun} of the service.")
    for other in elsewhere:
        by = f", placed by {other.flow}" if other.flow else ""
        console.print(f"{other.urn} (of another journal{by}): equal, of the same definition of the service.")
    console.print(note)


def _why(row: IntentRow) -> str:
    if row.how == "reused":
        return f"It was not placed anew: {row.reuse}."
    if row.how == "adopted":
        return f"It was not placed anew but found on the platform (by {row.matched_by})."
    if row.reuse is None:
        return "No earlier one was looked for: reuse is off unless the call says reuse=True."
    return f"It was placed anew in spite of reuse=True, because at that time: {row.reuse}."


def _print_difference(one: Against) -> None:
    name = one.urn or short_id(one.key or "")
    run = f", run {short_run(one.run)}" if one.run else ""
    console.print(f"{name} ({one.status}{run}): {'; '.join(one.reasons) or 'reuse=True could use it now'}")
    for difference in one.differences[:_DIFFERENCES]:
        console.print(f"    {difference.where or 'request'}")
        console.print(f"        here:    {difference.here}")
        console.print(f"        earlier: {difference.there}")
    if len(one.differences) > _DIFFERENCES:
        console.print(f"    and {len(one.differences) - _DIFFERENCES} more")


async def _elsewhere(client: IvcapClient, row: IntentRow, known: set[Any]) -> tuple[list[Earlier], str]:
    """Return equal orders or jobs of other journals, and a sentence about this intent's idempotency record."""
    if row.definition is None:
        return [], "The definition of its service was not recorded, so nothing on the platform is compared with it."
    reuse_fingerprint = fingerprint_for_reuse(
        platform=row.platform, account=row.account, noun=row.noun, definition=row.definition, request=row.request
    )
    try:
        elsewhere = [one for one in await earlier_of(client.aspects, reuse_fingerprint) if one.urn not in known]
        aspects = [one async for one in client.aspects.list(entity=key_entity(row.key), schema=INTENT_SCHEMA)]
    except ForbiddenError as error:
        return [], f"The platform refuses idempotency records, so those of others cannot be found: {error.message}"
    if not aspects:
        return elsewhere, (
            "Its idempotency record is not on the platform: it was refused or retracted, so others cannot find it."
        )
    return elsewhere, "Its idempotency record is on the platform, where reuse=True finds it."
