"""`ivcap-flows doctor`: is everything that a flow needs in order?"""

from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.cli.output import Json, console, emit
from ivcap_flows.cli.records import open_journal
from ivcap_flows.errors import IvcapFlowsError, PlatformOffError
from ivcap_flows.identity import short_id

__all__ = ["doctor"]

_LOOKED_AT = 500
"""Artifacts that the search for unfinished uploads reads at most, newest first."""


def doctor(*, as_json: Json = False) -> int:
    """Check packages, journal and platforms, and name what was left unfinished; exit status 1 if something is wrong."""
    findings: list[dict[str, object]] = []

    def check(name: str, look: Callable[[], list[str]]) -> None:
        try:
            notes, good = look(), True
        except PlatformOffError as error:
            notes, good = [str(error)], True
        except IvcapFlowsError as error:
            notes, good = [str(error)], False
        findings.append({"check": name, "ok": good, "notes": notes})

    check("packages", _packages)
    check("journal", _journal)
    check("IVCAP", lambda: loop.run(_ivcap()))
    check("Provena", lambda: loop.run(_provena()))
    check("unfinished uploads", lambda: loop.run(_uploads()))
    wrong = any(not found["ok"] for found in findings)
    if as_json:
        emit(findings)
        return int(wrong)
    for found in findings:
        mark = "[green]ok[/green]   " if found["ok"] else "[red]wrong[/red]"
        notes = found["notes"]
        assert isinstance(notes, list)
        console.print(f"{mark}  [bold]{found['check']}[/bold]  {notes[0] if notes else ''}")
        for note in notes[1:]:
            console.print(f"         {note}")
    return int(wrong)


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
        notes = [journal.url]
        notes += [
            f"in doubt: {row.noun} for {row.subject} ({short_id(row.key)}); the next run that asks for it resolves it"
            for row in (*journal.intents.where(state="sent"), *journal.intents.where(state="in_doubt"))
        ]
        notes += [f"dead letter: {row.sink} {row.key}: {row.reason}" for row in journal.deliveries.where(state="dead")]
        return notes


async def _ivcap() -> list[str]:
    client = await ivcap_client(None, deployed=False)
    async for _ in client.services.list(limit=1):
        break
    return [f"{await client.platform()} as {await client.account()}"]


async def _provena() -> list[str]:
    client = await provena_client(None, deployed=False)
    person = await client.auth_api.linked_person()
    linked = f"linked to person {person}" if person else "not linked to a person, which most registrations need"
    return [f"{await client.platform()} as {await client.username()}, {linked}"]


async def _uploads() -> list[str]:
    """Artifacts without all their bytes that nobody works on any more: what lost replies and kills left behind."""
    client = await ivcap_client(None, deployed=False)
    quiet = datetime.now(timezone.utc) - timedelta(minutes=1)
    notes: list[str] = []
    async for artifact in client.artifacts.list(limit=_LOOKED_AT):
        # An artifact of no bytes may stay pending; it lacks nothing.
        if artifact.status in ("pending", "partial") and artifact.size != 0:
            when = artifact.created_at
            if when is None or when < quiet:
                notes.append(f"{artifact.urn} ({artifact.name}) is {artifact.status} since {when}")
    return notes or ["none"]
