"""`ivcap-flows doctor`: check everything that a flow needs."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from cyclopts import Parameter
from packaging.requirements import Requirement
from rich.text import Text

from ivcap_flows import loop
from ivcap_flows.capture.reconcile import not_to_come_back
from ivcap_flows.cli.block_check import check_block, ending
from ivcap_flows.cli.output import Json, console, moment, print_json
from ivcap_flows.cli.platform import ivcap, place_of, provena
from ivcap_flows.cli.records import open_journal
from ivcap_flows.durable.parking import in_words
from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.durable.wording import counted
from ivcap_flows.errors import IvcapFlowsError, NotFoundError, PlatformOffError
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.identity import short_id, short_run
from ivcap_flows.journal.states import OPEN
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.outbox import FAULT
from ivcap_flows.work.duplicates import Duplicate, duplicates_on_ivcap, note_duplicates
from ivcap_flows.work.orphans import orphans_of

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import Journal, Outcome, RunRow
    from ivcap_flows.journal.rows import AttemptRow, Park

__all__ = ["doctor"]

T = TypeVar("T")

LOOKED_AT: Final = 500
"""Artifacts that the search for what was left behind reads at most, newest first."""
_OVERSLEPT: Final = timedelta(minutes=10)
_EVER: Final = datetime.min.replace(tzinfo=timezone.utc)
_APART: Final = 60.0
"""Seconds between two clocks from which on it matters: tokens are renewed half a minute before their end."""
_UNENDED: Final[tuple[Outcome, ...]] = ("running", "lost")
_SHOWN: Final = 10
"""Runs or orphans of one kind that are listed at most."""
TIMEOUT: Final = 15.0
"""Seconds that a platform gets to answer."""
_SEARCH_TIMEOUT: Final = 60.0
"""Seconds that the search for what was made twice may take on a platform."""


class _Wrong(str):
    """A note of something that is not in order."""


@dataclass(frozen=True)
class _Finding:
    check: str
    ok: bool
    notes: list[str]


def doctor(*, block: Annotated[str | None, Parameter(name="--block")] = None, as_json: Json = False) -> int:
    """Check packages, journal, platforms and clocks, and list unfinished runs and work. Exit status 1 if something is
    wrong.

    Args:
        block: Also check the credentials blocks of this name in Prefect. A login that can be renewed is renewed.
    """
    findings = [
        _found("packages", _packages),
        _found("journal", _journal),
        _found("runs", _runs),
        _found("IVCAP", lambda: [*_in_time("IVCAP", _ivcap()), *_search(_made_on_ivcap())]),
        _found("Provena", lambda: [*_in_time("Provena", _provena()), *_search(_made_in_provena())]),
        _found("clocks", _clocks),
        *([_found(f"block {block}", lambda: check_block(block))] if block is not None else []),
    ]
    if as_json:
        print_json(findings)
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
        notes = look()
        return _Finding(check, not any(isinstance(note, _Wrong) for note in notes), notes)
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
        raise IvcapFlowsError("; ".join(wrong) + ". Reinstall with `pip install --upgrade ivcap-flows`.")
    return [f"ivcap-flows {version('ivcap-flows')}, prefect {version('prefect')}, Python {platform.python_version()}"]


def _journal() -> list[str]:
    with open_journal(new=True) as journal:
        sent = journal.intents.where(state="sent", limit=None)
        twice = journal.intents.where(only="twice", limit=None)
        dead = journal.deliveries.where(state="dead", limit=None)
        pending = journal.deliveries.where(state="pending", limit=None)
        exposure = journal.exposure()
        return [
            journal.url,
            *map(_Wrong, journal.weaknesses()),
            *([] if exposure is None else [exposure]),
            *(
                f"no reply known: {row.noun} for {row.subject} ({short_id(row.key)}), sent {moment(row.sent_at)}; the "
                "next run that asks for it resolves it"
                for row in sent
            ),
            *(
                _Wrong(
                    f"made twice: {row.noun} for {row.subject} ({short_id(row.key)}): {row.urn} is kept; the "
                    f"platform also has {', '.join(row.duplicates)}"
                )
                for row in twice
            ),
            *(f"refused by {row.sink}: run {row.run_id}: {row.reason}" for row in dead),
            *(
                f"not delivered to {row.sink}: run {row.run_id}: {row.reason}"
                for row in pending
                if (row.reason or "").startswith(FAULT)
            ),
        ]


def _runs() -> list[str]:
    """Runs that no process carries forward, and the work that none waits for."""
    with open_journal(new=True) as journal:
        open_runs = [run for outcome in _UNENDED for run in journal.runs.recent(LOOKED_AT, outcome=outcome)]
        lost = [run for run, _ in map(journal.runs.standing, open_runs) if run.outcome == "lost"]
        parks, orphans = journal.parks.open(), orphans_of(journal, not_to_come_back)
        counts = [
            counted(len(found), nouns)
            for found, nouns in ((lost, "lost runs"), (parks, "parked runs"), (orphans, "orphans"))
            if found
        ]
        return [
            ", ".join(counts) or "none is lost or parked, and none has left an order or job behind",
            *_some(f"lost: {_name(run)}, begun {moment(run.created_at)}; {_next(run)}" for run in lost),
            *_some(_parked(journal, *each) for each in parks),
            *_some(
                f"orphan: {orphan.noun} {orphan.name or orphan.service} ({short_id(orphan.key or '')}) of "
                f"{orphan.flow or 'no run on record'}, {orphan.left}: {orphan.then}"
                for orphan in orphans
            ),
        ]


def _some(notes: Iterable[str]) -> list[str]:
    listed = list(notes)
    more = len(listed) - _SHOWN
    return listed if more <= 0 else [*listed[:_SHOWN], f"{more} more {listed[0].partition(':')[0]}"]


def _name(run: RunRow) -> str:
    return f"the run {short_run(run.id)} of {run.flow_name}"


def _next(run: RunRow) -> str:
    again = "retry its flow run in Prefect" if run.deployed else "start the same command again"
    return f"{again} to continue it, or give it up: ivcap-flows runs abandon {short_run(run.id)}"


def _parked(journal: Journal, attempt: AttemptRow, park: Park) -> str:
    name = _name(journal.runs.get(attempt.run_id))
    if journal.now() - park.wake_at > _OVERSLEPT:
        return (
            f"overslept: {name} is parked and should have woken at {moment(park.wake_at)}; check that a worker of its "
            "pool is running and that its deployment has a free slot"
        )
    return f"parked: {name} waits for {in_words(park.waits)} and wakes at {moment(park.wake_at)}"


def _clocks() -> list[str]:
    """How far this machine's clock is from those of the platforms and of the journal, as far as they can be asked."""
    ahead: dict[str, float] = {}
    asked: dict[str, Callable[[], float | None]] = {
        "IVCAP": lambda: _in_time("IVCAP", _ahead_of(ivcap)),
        "Provena": lambda: _in_time("Provena", _ahead_of(provena)),
        "the journal": _ahead_of_journal,
    }
    for name, ask in asked.items():
        # What cannot be asked is named by a check of its own.
        with contextlib.suppress(IvcapFlowsError):
            seconds = ask()
            if seconds is not None:
                ahead[name] = seconds
    wrong = [
        f"{_span(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} that of {name}"
        for name, seconds in ahead.items()
        if abs(seconds) > _APART
    ]
    if wrong:
        raise IvcapFlowsError(
            f"This machine's clock is {', and '.join(wrong)}. No look-up uses this clock, so nothing is sent twice. "
            "But times in records are wrong by as much, tokens are renewed at the wrong time, and parked runs and "
            "deliveries wait for the wrong moment. Set the clock that is wrong, with NTP if possible."
        )
    return [f"this machine's is within a minute of that of {', '.join(ahead)}" if ahead else "no other could be asked"]


async def _ahead_of(client_of: Callable[[], Awaitable[PlatformClock]]) -> float | None:
    """The seconds by which this machine's clock is surely ahead of a platform's, negative behind it; None for a
    platform that tells no time."""
    platform = await (await client_of()).now()
    own = datetime.now(timezone.utc)
    if platform is None:
        return None
    return max(0.0, (own - platform.latest).total_seconds()) + min(0.0, (own - platform.earliest).total_seconds())


def _ahead_of_journal() -> float:
    with open_journal(new=True) as journal:
        return (datetime.now(timezone.utc) - journal.now()).total_seconds()


def _in_time(name: Literal["IVCAP", "Provena"], look: Coroutine[Any, Any, T]) -> T:
    """A look that does not wait as patiently as a flow does."""
    try:
        return loop.run(asyncio.wait_for(look, TIMEOUT))
    except asyncio.TimeoutError as error:
        raise IvcapFlowsError(
            f"{place_of(name)} did not answer within {TIMEOUT:g} s. Check its URL, the network and the proxy."
        ) from error


def _search(look: Coroutine[Any, Any, list[str]]) -> list[str]:
    try:
        return loop.run(asyncio.wait_for(look, _SEARCH_TIMEOUT))
    except asyncio.TimeoutError:
        return [f"the search for what was made twice took more than {_SEARCH_TIMEOUT:g} s; try again later"]
    except IvcapFlowsError as error:
        return [f"the search for what was made twice failed: {error}"]


def _embedded() -> str:
    folder = Settings.current().embedded_in
    return "" if folder is None else f", embedded in {folder},"


async def _ivcap() -> list[str]:
    client = await ivcap()
    async for _ in client.services.list(limit=1):
        break
    known = f"{await client.platform()}{_embedded()} as {await client.account()}"
    return [known, *_for_trying_out(), *[note async for note in _unfinished_uploads(client)]]


def _for_trying_out() -> list[str]:
    """The token of a variable, which ends while nobody looks."""
    settings = Settings.current()
    if settings.ivcap_jwt is None or settings.ivcap_url is None:
        return []
    return [
        f"IVCAP_JWT ends at {ending(settings.ivcap_jwt.get_secret_value())} and is not renewed, which is for trying "
        f"out; for deployments, log in by `ivcap-flows login {settings.ivcap_url} --block NAME`"
    ]


async def _provena() -> list[str]:
    client = await provena()
    person = await client.auth_api.linked_person()
    linked = f"linked to person {person}" if person else "not linked to a person, which most registrations need"
    return [f"{await client.platform()}{_embedded()} as {await client.username()}, {linked}"]


async def _made_on_ivcap() -> list[str]:
    client = await ivcap()
    with open_journal(new=True) as journal:
        twice = await duplicates_on_ivcap(client, journal)
        return await journal.ask(_twice, journal, *twice)


async def _made_in_provena() -> list[str]:
    from ivcap_flows.registration.duplicates import duplicates_in_provena

    client = await provena()
    with open_journal(new=True) as journal:
        twice = await duplicates_in_provena(client, journal)
        return await journal.ask(_twice, journal, *twice)


def _twice(journal: Journal, found: list[Duplicate], looked_at: str) -> list[str]:
    note_duplicates(journal, found)
    searched = f"searched for what was made twice among {looked_at}; older ones were not read"
    return [*map(_Wrong, map(str, found)), searched]


async def _unfinished_uploads(client: IvcapClient) -> AsyncIterator[str]:
    """Artifacts of the account without all their bytes with which no upload on record goes on: what lost replies and
    kills left behind."""
    named, since = await asyncio.to_thread(_open_uploads)
    account = await client.account()
    async for item in client.artifacts.list(limit=LOOKED_AT):
        when = item.created_at
        # An artifact of no bytes may stay pending; it lacks nothing.
        if item.status not in ("pending", "partial") or item.size == 0 or item.urn in named:
            continue
        if when is not None and since is not None and when >= since:
            continue
        try:
            record = await client.artifacts.read(item.urn)
            there = await client.artifacts.offset(record)
        except NotFoundError:
            continue
        if record.account in (None, account) and record.status == item.status:
            of = "an unknown number of" if record.known_size is None else record.known_size
            yield (
                f"unfinished upload: {record.urn} ({record.name}), {record.status} with {there} of {of} bytes, "
                f"{_age(when, client.time)}; no upload in this journal continues it. IVCAP cannot delete artifacts: "
                f"leave it, or send the rest with `ivcap artifact upload {record.urn} -f <file>`"
            )


def _open_uploads() -> tuple[set[str], datetime | None]:
    """The artifacts that open uploads name, and since when, by the platform's clock, a live one may have made one that
    it does not name yet."""
    try:
        with open_journal(new=True) as journal:
            rows = [row for state in OPEN for row in journal.intents.where(noun="upload", state=state, limit=None)]
            nameless = [row for row in rows if row.progress is None and journal.intents.held(row)]
    except IvcapFlowsError:
        return set(), None
    named = {str(row.progress.get("urn")) for row in rows if isinstance(row.progress, dict)}
    return named, min((row.platform_time or _EVER for row in nameless), default=None)


def _age(since: datetime | None, now: ServerTime | None) -> str:
    if since is None or now is None:
        return "of unknown age"
    return f"{_span((now.earliest - since).total_seconds())} old"


def _span(length_of_time: float) -> str:
    seconds = max(0, round(length_of_time))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} s"
