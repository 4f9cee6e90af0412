"""The output of `orders why-not`: why an order or job was placed anew, and no earlier one was reused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from ivcap_flows.cli.output import console, print_json
from ivcap_flows.cli.platform import ask_ivcap_if_there
from ivcap_flows.errors import ForbiddenError
from ivcap_flows.identity import INTENT_SCHEMA, fingerprint_for_reuse, key_entity, short_id, short_run
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.work.reuse import Earlier, earlier_of
from ivcap_flows.work.why_not import Against, against, earlier_rows

__all__ = ["print_why_not"]

_DIFFERENCES: Final = 3


def print_why_not(journal: Journal, row: IntentRow, *, as_json: bool) -> None:
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
                "answer": _answer(row),
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
    console.print(_answer(row))
    for one in found:
        _print(one)
    if not found:
        console.print(f"This journal has no earlier {row.noun} of the service.")
    for other in elsewhere:
        by = f", placed by {other.flow}" if other.flow else ""
        console.print(f"{other.urn} (of another journal{by}): equal, of the same definition of the service.")
    console.print(note)


def _answer(row: IntentRow) -> str:
    if row.how == "reused":
        return f"It was not placed anew: {row.reuse}."
    if row.how == "adopted":
        return f"It was not placed anew but found on the platform (by {row.matched_by})."
    if row.reuse is None:
        return "No earlier one was looked for: reuse is off unless the call says reuse=True."
    return f"It was placed anew in spite of reuse=True, because at that time: {row.reuse}."


def _print(one: Against) -> None:
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
