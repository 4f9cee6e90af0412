"""Forget an effect that the platform has lost, so that the next run requests it again."""

from __future__ import annotations

from typing import Final

from ivcap_flows.cli.platform import in_time, ivcap, provena
from ivcap_flows.errors import DurabilityError, InputError, NotFoundError
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.work.kinds import KINDS

__all__ = ["forget"]

_ASPECTS: Final = ("aspect", "aspect update")
_ON_PROVENA: Final = ("model run", "registry item", "item version", "dataset")


def forget(journal: Journal, row: IntentRow) -> str:
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
    if row.noun not in (*KINDS, *_ASPECTS, *_ON_PROVENA):
        raise InputError(f"A {row.noun} cannot be looked up, so it cannot be forgotten.")
    if row.state != "done":
        raise DurabilityError(f"The {name} is {row.standing}: the journal has no effect of it to forget.", key=row.key)
    on_provena = row.noun in _ON_PROVENA
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
