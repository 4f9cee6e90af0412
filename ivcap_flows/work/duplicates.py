"""Find effects that exist twice on IVCAP though they were to be caused once.

Two journals caused them, or a journal that was deleted or damaged, or the platform shows a first request only after it
was sent again. An order has its key in its name, an upload has it in the aspect that states its content. Idempotency
records name what each journal made. Jobs and aspects have no key and are recognised by their content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.errors import ForbiddenError, NotFoundError
from ivcap_flows.identity import CONTENT_SCHEMA, INTENT_SCHEMA, fingerprint, ivcap_urn, short_id, without_key
from ivcap_flows.loop import all_of
from ivcap_flows.threads import JOURNAL
from ivcap_flows.work.kinds import JOBS, LOOKED_AT, ORDERS, is_of, read_listed

if TYPE_CHECKING:
    from ivcap_flows.ivcap.aspects import AspectRecord
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.ivcap.job_records import JobRecord
    from ivcap_flows.journal import IntentRow, Journal

__all__ = ["ByKey", "Duplicate", "duplicates_on_ivcap", "note_duplicates"]

ASPECTS_LOOKED_AT: Final = 50
"""Number of aspects to search duplicates of: the newest ones that the journal added. Each takes a request."""

_NEXT: Final = {
    "order": "Each is complete and was paid for, and IVCAP cannot cancel orders: use one of them.",
    "job": "Each is complete and was paid for, and IVCAP cannot cancel jobs: use one of them.",
    "upload": "Each is complete, and IVCAP cannot delete artifacts: use one of them.",
}
_LATE: Final = (
    "It was sent again, because its first request had shown no effect. The other one asks for the same, and no key "
    "claims it: it is the first, shown late, or somebody else asked for it. IVCAP cannot cancel jobs: use one of them."
)
_RETRACT: Final = "Another journal may have added one, or both are intended. If not, retract one with retract_aspect."


@dataclass(frozen=True)
class Duplicate:
    """Several effects where there should be one. `sure`: they have the same key; otherwise only equal content.

    `urns` maps each URN to the journal that made it, or None if that is unknown; oldest first, as far as known.
    """

    noun: str
    subject: str | None
    key: str
    urns: Mapping[str, str | None]
    next_step: str
    sure: bool = True

    def __str__(self) -> str:
        made = [urn if journal is None else f"{urn} (by {journal})" for urn, journal in self.urns.items()]
        of = "" if self.subject is None else f" for {self.subject}"
        begin = "made twice" if self.sure else "may have been made twice"
        return f"{begin}: {self.noun}{of} ({short_id(self.key)}): {', '.join(made)}. {self.next_step}"


@dataclass
class _Group:
    noun: str
    subject: str | None
    key: str
    urns: dict[str, str | None] = field(default_factory=dict)


class ByKey:
    """Effects seen on a platform, grouped by their idempotency key."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._groups: dict[str, _Group] = {}

    def add(self, key: str, urn: str, noun: str, subject: str | None, journal_id: str | None = None) -> None:
        """Add an effect, or another source for a known one. `key` may be the short key that an order's name has."""
        group = self._groups.setdefault(short_id(key), _Group(noun, subject, key))
        made_by = None if journal_id is None else f"journal {journal_id}"
        group.urns[urn] = group.urns.get(urn) or ("this journal" if journal_id == self._journal.id else made_by)

    def several(self, noun: str) -> list[_Group]:
        """Return the groups of a noun that have several URNs now. The caller may delete URNs from a group's `urns`."""
        return [group for group in self._groups.values() if group.noun == noun and len(group.urns) > 1]

    def duplicates(self, next_steps: Mapping[str, str]) -> list[Duplicate]:
        """Return one duplicate for each key with several effects. Reads the journal."""
        found = []
        for group in self._groups.values():
            if len(group.urns) > 1:
                urns = {urn: by or self._here(urn) for urn, by in group.urns.items()}
                step = next_steps.get(group.noun, "Each is complete: use one of them.")
                found.append(Duplicate(group.noun, group.subject, group.key, urns, step))
        return found

    def _here(self, urn: str) -> str | None:
        return "this journal" if self._journal.intents.where(urn=urn, limit=1) else None


async def _records(client: IvcapClient) -> list[AspectRecord]:
    """Return the account's newest `LOOKED_AT` idempotency records, oldest first; none if reading is forbidden."""
    with suppress(ForbiddenError):
        return [record async for record in client.aspects.list(schema=INTENT_SCHEMA, limit=LOOKED_AT)][::-1]
    return []


async def duplicates_on_ivcap(client: IvcapClient, journal: Journal) -> tuple[list[Duplicate], str]:
    """Return orders, jobs, uploads and aspects that exist twice, and a phrase that says what was searched."""
    seen, claimed = ByKey(journal), set[str]()
    for record in await _records(client):
        content = record.content
        # What Provena has is found there.
        if isinstance(content, Mapping) and isinstance(content.get("urn"), str) and content.get("noun") in _NEXT:
            key = content.get("key") or record.entity.rpartition(":")[2]
            seen.add(key, content["urn"], str(content.get("noun")), content.get("subject"), content.get("journal"))
            claimed.add(content["urn"])
    _, _, aspects, jobs = await asyncio.gather(
        _orders(client, seen), _uploads(client, seen), _aspects(client, journal), _jobs(client, journal, claimed)
    )
    sure = await journal.ask(seen.duplicates, _NEXT)
    looked_at = (
        f"the newest {LOOKED_AT} idempotency records, orders, jobs and content aspects of uploads of the account, and "
        f"the newest {ASPECTS_LOOKED_AT} aspects that this journal added and the newest {LOOKED_AT} that it sent again"
    )
    return [*sure, *aspects, *jobs], looked_at


async def _orders(client: IvcapClient, seen: ByKey) -> None:
    account = await client.account()
    for order in [order async for order in ORDERS.newest(client)][::-1]:
        key = ORDERS.key(order)
        if key is not None and order.account in (None, account):
            seen.add(key, order.urn, "order", without_key(order.name) or None)


async def _uploads(client: IvcapClient, seen: ByKey) -> None:
    try:
        listed = client.aspects.list(schema=CONTENT_SCHEMA, limit=LOOKED_AT)
        for record in [record async for record in listed][::-1]:
            key = record.content.get("key") if isinstance(record.content, Mapping) else None
            if isinstance(key, str):
                seen.add(key, record.entity, "upload", None)
    except ForbiddenError:
        return
    for group in seen.several("upload"):
        for urn in list(group.urns):
            # An upload without all its bytes does not count here: it is reported as unfinished. Nor does one that the
            # platform has lost.
            whole = False
            with suppress(NotFoundError):
                whole = (await client.artifacts.read(urn)).complete
            if not whole:
                del group.urns[urn]


async def _aspects(client: IvcapClient, journal: Journal) -> list[Duplicate]:
    """Compare the journal's newest aspects, and those that were sent again, with equal active ones that no key of the
    journal claims."""
    newest = await _done(client, journal, "aspect", limit=ASPECTS_LOOKED_AT)
    again = [await _done(client, journal, noun, only="sent again") for noun in ("aspect", "aspect update")]
    rows, account = {row.key: row for some in (newest, *again) for row in some}, await client.account()
    like = await all_of(lambda row: _like(client, journal, row, account), rows.values())
    return [found for found in like if found is not None]


async def _done(
    client: IvcapClient,
    journal: Journal,
    noun: str,
    *,
    only: Literal["sent again"] | None = None,
    limit: int = LOOKED_AT,
) -> list[IntentRow]:
    """Return the journal's newest effects of a noun in the client's account that are done."""
    rows = await JOURNAL.run(journal.intents.where, noun=noun, only=only, newest=True, limit=limit)
    place = await client.platform(), await client.account()
    return [row for row in rows if row.state == "done" and (row.platform, row.account) == place]


async def _like(client: IvcapClient, journal: Journal, row: IntentRow, account: str) -> Duplicate | None:
    request: Mapping[str, Any] = row.request
    redaction, wanted = journal.redaction, fingerprint(request["content"])
    listed = client.aspects.list(entity=request["entity"], schema=request["schema"], order_direction="ASC")
    alike = [record.urn async for record in listed if fingerprint(redaction.of(record.content)) == wanted]
    if row.urn not in alike:
        # The journal's own aspect was retracted in the meantime.
        return None
    claimed = await journal.ask(journal.intents.outcomes_of_others, row.key, alike)
    others = [urn for urn in alike if urn != row.urn and urn not in claimed]
    # Aspects of other accounts do not count. Lists do not show the account, so each aspect is read.
    others = [urn for urn in others if (await client.aspects.read(urn)).account in (None, account)]
    if not others:
        return None
    urns = {urn: "this journal" if urn == row.urn else None for urn in alike if urn == row.urn or urn in others}
    return Duplicate("aspect", str(request["schema"]), row.key, urns, _RETRACT, sure=False)


async def _jobs(client: IvcapClient, journal: Journal, claimed: Set[str]) -> list[Duplicate]:
    """Compare the journal's jobs that were sent again with equal jobs that no key claims.

    `claimed` are the URNs that idempotency records name.
    """
    rows, redaction = await _done(client, journal, "job", only="sent again"), journal.redaction
    account = await client.account()
    listed = [job async for job in JOBS.newest(client)] if rows else []
    claimed = claimed | await journal.ask(journal.intents.outcomes_of_others, "", [job.urn for job in listed])
    services = {row.request["service"] for row in rows}
    free = [job for job in listed if job.urn not in claimed and any(is_of(job, service) for service in services)]

    async def asked(job: JobRecord) -> str | None:
        whole = await read_listed(JOBS, client, job.urn, ivcap_urn("service", str(job.service)))
        if whole is None or whole.account not in (None, account):
            return None
        return fingerprint(redaction.of(JOBS.shown(whole)))

    alike = list(zip(free, await all_of(asked, free), strict=True))
    found = []
    for row in rows:
        service, since = row.request["service"], look_since(client.time, row)
        wanted = {fingerprint(row.request["request"]), fingerprint(row.outcome["request"])}
        others = [
            job.urn
            for job, request in alike
            if request in wanted
            and is_of(job, service)
            and (since is None or job.requested_at is None or job.requested_at >= since)
        ]
        # While an equal request is in doubt, the other may be its effect.
        if others and not await journal.ask(journal.intents.rivals, row):
            urns = {**dict.fromkeys(others), str(row.urn): "this journal"}
            found.append(Duplicate("job", row.subject, row.key, urns, _LATE, sure=False))
    return found


def note_duplicates(journal: Journal, found: Sequence[Duplicate]) -> None:
    """Store the duplicates of each effect that the journal knows in its intent."""
    for each in found:
        for urn in each.urns:
            for row in journal.intents.where(urn=urn, limit=None):
                others = [other for other in each.urns if other != urn and other not in row.duplicates]
                if short_id(row.key) == short_id(each.key) and row.state == "done" and others:
                    journal.intents.note_duplicates(row.key, others)
