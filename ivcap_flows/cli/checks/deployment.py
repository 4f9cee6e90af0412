"""The loop of `ivcap-flows doctor --real`: check a deployment by what the clients rely on. It only reads.

A check is a row of a table (`deployed_ivcap.py`, `deployed_provena.py`). It reads by the platform's own client, so the
clients' models are the only description of a reply.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel

from ivcap_flows.cli.checks.clocks import APART, ahead_of
from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.durable.wording import duration
from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    InvalidParameterError,
    IvcapFlowsError,
    NotAuthorizedError,
    NotFoundError,
    PlatformError,
    PlatformOffError,
    ProtocolError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.identity import EMBEDDED
from ivcap_flows.plain_text import described
from ivcap_flows.secrets import scrub_text
from ivcap_flows.sinks.base import without_emails

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "Check",
    "Finding",
    "Verdict",
    "check_deployment",
    "clock_of",
    "first",
    "holds",
    "newest_first",
    "place_of",
    "private",
    "whole_list",
]

C = TypeVar("C")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

Outcome = Literal["ok", "differs", "refused", "not there", "no answer", "not looked at"]

TIMEOUT: Final = 15.0
"""Seconds for all requests of a check."""
_RETRIES: Final = 3.0
"""Seconds of a check in which requests are repeated, so that their failure is named and not its own time-out."""

_NO_ROUTE: Final = frozenset({404, 405, 410, 501})
_NO_USE: Final = frozenset({"href", "links", "gsi_status"})
"""Known fields that the clients have no use for: links of IVCAP, an index of Provena's jobs."""

_PRIVATE: Final = re.compile(
    r"\bhttps?://[^\s'\"<>]+"
    r"|\burn(?::|%3A)[^\s'\"<>/?,;]+"
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b\d+(?:\.\d+)+/\d+\b"  # a handle of Provena
    r"|(?<=the host )\S+|(?<=is of )\S+|(?<=is about )\S+"
    r"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
    r"|⟦[^⟧]*⟧",
    re.IGNORECASE,
)
"""What of our own messages may name a thing or a place of the user's."""

_BRACKETS: Final = {ord(bracket): None for bracket in "⟦⟧"}


@dataclass(frozen=True)
class Check(Generic[C]):
    """A read of a client, and what it means for the user if the platform does not answer it as expected.

    `read` returns the records of the replies, or a note; it raises a Verdict for what no model shows. `needs` are
    fields that a model may lack, but not the package: one that no record has is a difference. Set `optional` if the
    package does without what is checked: then only a difference is wrong.
    """

    name: str
    read: Callable[[C], Awaitable[Sequence[BaseModel] | str]]
    otherwise: str
    needs: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Finding:
    """What a check found. `means` is what it means for the user, None if all is in order."""

    platform: str
    check: str
    outcome: Outcome
    note: str
    means: str | None = None
    wrong: bool = False


class Verdict(Exception):  # noqa: N818 - it never leaves the checks
    """Another outcome than that of the reply itself."""

    def __init__(self, outcome: Outcome, note: str) -> None:
        super().__init__(note)
        self.outcome: Outcome = outcome
        self.note = note


async def check_deployment(
    platform: str, client_of: Callable[[], Awaitable[C]], checks: Sequence[Check[C]], *, full: bool
) -> list[Finding]:
    """Return what each check finds. If the first one gets no answer or is refused, the others are not made."""
    client: C | None = None

    async def begin(_: object) -> str:
        nonlocal client
        client = await client_of()
        return ""

    opened = await _finding(platform, None, Check("settings", begin, "Nothing else is checked."), full)
    if client is None:
        return [opened]
    found: list[Finding] = []
    for check in checks:
        found.append(await _finding(platform, client, check, full))
        if found[0].outcome in ("no answer", "refused"):
            return [*found, Finding(platform, "the other checks", "not looked at", f"there was no {found[0].check}")]
    return found


async def _finding(platform: str, client: C, check: Check[C], full: bool) -> Finding:
    retry_until.set(time.monotonic() + _RETRIES)
    try:
        read = await asyncio.wait_for(check.read(client), TIMEOUT)
        note = read if isinstance(read, str) else _judged(read, check.needs)
        outcome: Outcome = "ok"
    except Verdict as verdict:
        outcome, note = verdict.outcome, verdict.note
    except asyncio.TimeoutError:
        outcome, note = "no answer", f"no reply within {TIMEOUT:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a reply does to the client is what is looked for
        outcome, note = _failure(error, optional=check.optional, full=full)
    fine = outcome in ("ok", "not looked at")
    wrong = outcome == "differs" or not (fine or check.optional)
    return Finding(platform, check.name, outcome, _sendable(note, full=full), None if fine else check.otherwise, wrong)


def _judged(records: Sequence[BaseModel], needs: Iterable[str]) -> str:
    """Return the note on records that are in order. Raises a Verdict if there is none, or if all lack a field."""
    if not records:
        raise Verdict("not looked at", "there is nothing to look at")
    missing = [
        type(records[0]).model_fields[name].alias or name
        for name in needs
        if not any(name in record.model_fields_set and getattr(record, name) is not None for record in records)
    ]
    if missing:
        raise Verdict("differs", f"no {type(records[0]).__name__} has {', '.join(missing)}")
    news = sorted({name for record in records for name in _unknown(record)})
    read = f"{len(records)} read" if len(records) > 1 else "read"
    return f"{read}; fields that are new: {', '.join(news)}" if news else read


def _unknown(record: BaseModel, place: str = "") -> Iterator[str]:
    """Yield the fields of a reply that the clients' models do not have."""
    yield from (place + name for name in (record.model_extra or {}).keys() - _NO_USE)
    for name in type(record).model_fields:
        value = getattr(record, name)
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, BaseModel):
                yield from _unknown(inner, f"{place}{name}.")


def _failure(error: Exception, *, optional: bool = False, full: bool = False) -> tuple[Outcome, str]:
    """Return how a read that failed is counted, and what to say of it: in the platform's own words only if `full`."""
    status = getattr(error, "status", None)
    outcome: Outcome = "differs"
    if isinstance(error, PlatformOffError):
        return "not looked at", "the settings name only the other platform"
    if isinstance(error, NotAuthorizedError | ForbiddenError):
        outcome = "refused"
    elif status in _NO_ROUTE or (optional and isinstance(error, BadRequestError | InvalidParameterError)):
        outcome = "not there"
    elif isinstance(error, NotFoundError) and status is None:
        outcome = "not looked at"
    elif isinstance(error, UnreachableError | UnavailableError):
        outcome = "no answer"
    if full or not isinstance(error, IvcapFlowsError):
        return outcome, described(error) if full else f"the client fails with {type(error).__name__}"
    if not isinstance(error, PlatformError):
        return outcome, str(error)
    fault = getattr(error, "detail", None) if isinstance(error, ProtocolError) else None
    answer = "no reply" if status is None else str(status)
    request = f" to {error.data['method']} {error.data['path']}" if error.data.get("path") else ""
    return outcome, f"{answer}{request}: the reply {fault}" if fault else answer + request


def _sendable(text: str, *, full: bool) -> str:
    """Return one line without tokens and e-mail addresses, and without ids and addresses unless `full`."""
    line = " ".join(without_emails(scrub_text(text)).split())
    return line.translate(_BRACKETS) if full else _PRIVATE.sub("…", line)


def private(text: str) -> str:
    """Mark a part of a note that only `full` shows."""
    return f"⟦{text.translate(_BRACKETS)}⟧"


async def place_of(client: IvcapClient | ProvenaClient) -> str:
    """Return where a platform is, for a note."""
    place = await client.platform()
    return "on the embedded platform" if place.startswith(EMBEDDED) else f"at {private(place)}"


async def clock_of(client: PlatformClock) -> str:
    """Compare the platform's clock with this machine's."""
    ahead = await ahead_of(client)
    if ahead is None:
        raise Verdict("differs", "no reply has a Date")
    if abs(ahead) > APART:
        side = "behind" if ahead > 0 else "ahead of"
        raise Verdict("differs", f"it is {duration(abs(ahead))} {side} this machine's, of which one is wrong")
    return "within a minute of this machine's"


async def first(records: AsyncIterator[T]) -> T:
    """Return the first record of a list. Raises a Verdict if there is none."""
    found = await anext(records, None)
    if found is None:
        raise Verdict("not looked at", "there is nothing to look at")
    return found


async def whole_list(records: AsyncIterator[M], id_of: Callable[[M], str]) -> list[M]:
    """Return the records of a list. Raises a Verdict if one comes twice, as when a cursor is not heeded."""
    found = [record async for record in records]
    if len({id_of(record) for record in found}) < len(found):
        raise Verdict("differs", "a record comes twice in the pages of the list")
    return found


def newest_first(records: Sequence[M], at: Callable[[M], Any]) -> Sequence[M]:
    """Return the records. Raises a Verdict if a later one is newer."""
    times = [moment for record in records if (moment := at(record)) is not None]
    if any(before < after for before, after in pairwise(times)):
        raise Verdict("differs", "the list is not newest first")
    return records


def holds(found: Sequence[M], wanted: M, id_of: Callable[[M], str]) -> Sequence[M]:
    """Return what a look-up found. Raises a Verdict if a record that is there is not among it."""
    if id_of(wanted) not in map(id_of, found):
        raise Verdict("differs", "the look-up does not find a record that is there")
    return found
