"""`ivcap-flows doctor`: is everything that a flow needs in order?"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import Requirement
from rich.text import Text

from ivcap_flows import loop
from ivcap_flows.cli.output import Json, console, emit, moment
from ivcap_flows.cli.records import open_journal
from ivcap_flows.errors import IvcapFlowsError, PlatformOffError
from ivcap_flows.identity import short_id

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["doctor"]

LOOKED_AT: Final = 500
"""Artifacts that the search for unfinished uploads reads at most, newest first."""
_PATIENCE: Final = 15.0
"""Seconds that a platform gets to answer."""
QUIET: Final = timedelta(minutes=1)
"""An upload younger than this may still be going on."""


@dataclass(frozen=True)
class _Finding:
    check: str
    ok: bool
    notes: list[str]


def doctor(*, as_json: Json = False) -> int:
    """Check packages, journal and platforms, and name what was left unfinished; exit status 1 if something is wrong."""
    findings = [
        _found("packages", _packages),
        _found("journal", _journal),
        _found("IVCAP", lambda: _in_time("IVCAP", _ivcap())),
        _found("Provena", lambda: _in_time("Provena", _provena())),
    ]
    if as_json:
        emit(findings)
    else:
        for finding in findings:
            mark = Text("ok     ", "green") if finding.ok else Text("wrong  ", "red")
            first, *more = finding.notes
            console.print(Text.assemble(mark, (finding.check, "bold"), "  ", first))
            for note in more:
                console.print(f"       {note}")
    return int(not all(finding.ok for finding in findings))


def _found(check: str, look: Callable[[], list[str]]) -> _Finding:
    try:
        return _Finding(check, True, look())
    except IvcapFlowsError as error:
        return _Finding(check, isinstance(error, PlatformOffError), [str(error)])


def _packages() -> list[str]:
    """The versions that pip chose, held against the ranges that are known to work."""
    wrong = []
    for text in requires("ivcap-flows") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} is outside {wanted.specifier}")
    if wrong:
        raise IvcapFlowsError("; ".join(wrong) + ". Install ivcap-flows anew with `pip install --upgrade ivcap-flows`.")
    return [f"ivcap-flows {version('ivcap-flows')}, prefect {version('prefect')}, Python {platform.python_version()}"]


def _journal() -> list[str]:
    with open_journal() as journal:
        sent = [row for state in ("sent", "in_doubt") for row in journal.intents.where(state=state, limit=None)]
        dead = journal.deliveries.where(state="dead", limit=None)
        return [
            journal.url,
            *(
                f"no reply known: {row.noun} for {row.subject} ({short_id(row.key)}), sent {moment(row.sent_at)}; the "
                "next run that asks for it resolves it"
                for row in sent
            ),
            *(f"refused by {row.sink}: run {row.run_id}: {row.reason}" for row in dead),
        ]


def _in_time(name: str, look: Coroutine[Any, Any, list[str]]) -> list[str]:
    """A look that does not wait as patiently as a flow does."""
    try:
        return loop.run(asyncio.wait_for(look, _PATIENCE))
    except asyncio.TimeoutError as error:
        raise IvcapFlowsError(
            f"{name} did not answer within {_PATIENCE:g} s. Check its URL, the network and the proxy."
        ) from error


async def _ivcap() -> list[str]:
    from ivcap_flows.blocks.resolve import ivcap_client

    client = await ivcap_client(None, deployed=False)
    async for _ in client.services.list(limit=1):
        break
    known = f"{await client.platform()} as {await client.account()}"
    return [known, *[note async for note in _unfinished_uploads(client)]]


async def _provena() -> list[str]:
    from ivcap_flows.blocks.resolve import provena_client

    client = await provena_client(None, deployed=False)
    person = await client.auth_api.linked_person()
    linked = f"linked to person {person}" if person else "not linked to a person, which most registrations need"
    return [f"{await client.platform()} as {await client.username()}, {linked}"]


async def _unfinished_uploads(client: IvcapClient) -> AsyncIterator[str]:
    """Artifacts without all their bytes that nobody works on any more: what lost replies and kills left behind."""
    quiet = datetime.now(timezone.utc) - QUIET
    async for artifact in client.artifacts.list(limit=LOOKED_AT):
        when = artifact.created_at
        # An artifact of no bytes may stay pending; it lacks nothing.
        if artifact.status in ("pending", "partial") and artifact.size != 0 and (when is None or when < quiet):
            yield f"unfinished upload: {artifact.urn} ({artifact.name}), {artifact.status} since {moment(when)}"
