"""What the platform has lost though the journal has it: an upload is made again, of all else the user decides."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import unquote

from ivcap_flows.capture import journal
from ivcap_flows.durable.wording import forget
from ivcap_flows.errors import JournalError, NotFoundError, PlatformError
from ivcap_flows.handles import Handle
from ivcap_flows.identity import artifact_urns, ivcap_urn
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.loop import all_of
from ivcap_flows.tasks.call import IvcapCall, calls_made
from ivcap_flows.tasks.uploads import read_whole

__all__ = ["missing_inputs", "noticing"]

P = ParamSpec("P")
R = TypeVar("R")

MADE_AGAIN: Final = frozenset({"upload"})
"""What is made again by itself. All else costs, or is permanent, and a partial restore or a wrong account answers 404,
too."""
_MOST: Final = 500
"""Maximum number of inputs of failed work that are looked at."""
_BLOB: Final = re.compile(r"/artifacts/([0-9A-Za-z._-]+)/")
_URN: Final = re.compile(r"urn:ivcap:[a-z]+:[0-9A-Za-z._-]*[0-9A-Za-z_-]")
"""Without a full stop that ends a sentence."""


def noticing(body: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the body of a task that says what to do if the platform does not have what the journal has.

    An upload that its own account does not see either is noted as missing, so that the next one of the same content
    looks for it, and is sent again if it is gone.
    """

    @functools.wraps(body)
    async def noticed(*args: P.args, **kwargs: P.kwargs) -> R:
        with calls_made() as calls:
            try:
                return await body(*args, **kwargs)
            except NotFoundError as error:
                with suppress(JournalError):
                    said = await _said(journal(), _named(error) or _given([*args, *kwargs.values()]), calls)
                    error.message = " ".join([error.message, *said])
                    error.args = (error.message,)
                raise

    return noticed


async def missing_inputs(call: IvcapCall, work: Iterable[Any]) -> list[str]:
    """Return a line for each input that failed work lacked on the platform, with what to do about it."""
    named = list(dict.fromkeys(urn for each in work for urn in each.inputs))
    inputs = artifact_urns(named)
    for collection in [urn for urn in named if urn not in inputs]:
        with suppress(PlatformError):
            inputs += [item.urn async for item in call.client.collections.items(collection)]

    async def is_missing(urn: str) -> bool:
        try:
            await read_whole(call, urn)
        except NotFoundError:
            return True
        except PlatformError:
            # What failed is told in any case.
            return False
        return False

    asked = artifact_urns(inputs)[:_MOST]
    lines = []
    for urn, missing in zip(asked, await all_of(is_missing, asked), strict=True):
        if missing:
            said = await _said(call.journal, [urn], [call])
            lines.append(" ".join([f"The input {urn} is missing on the platform.", *(said or [_OTHER])]))
    return lines


_OTHER: Final = (
    "The journal has no upload of it. What made it is not asked for again by itself: make it again in a new run "
    "(IVCAP_FLOWS_FRESH=1), or pass another one."
)


async def _said(journal: Journal, urns: Sequence[str], calls: Sequence[IvcapCall]) -> list[str]:
    """Return what to do about each of the URNs that the journal has. `calls` have the credentials at hand.

    Note which are uploads that are missing.
    """

    def known() -> list[IntentRow]:
        return [row for urn in urns for row in journal.intents.where(urn=urn)]

    said = []
    for row in await journal.ask(known):
        if row.noun in MADE_AGAIN:
            said.append(await _looked_for(journal, row, calls))
        elif row.state == "done":
            said.append(forget(row.noun, row.key, str(row.urn), row.account))
    return said


async def _looked_for(journal: Journal, row: IntentRow, calls: Sequence[IvcapCall]) -> str:
    """Read an upload with its own account, since another gets a 404 for what is there. Note it if it is missing."""
    own = await IvcapCall.at_hand(calls, row.platform, row.account)
    if own is None:
        return (
            f"{row.account} uploaded it, whose credentials are not at hand, so it is not noted as missing: the next "
            "upload of the same content is kept, and not sent again. Read it with the credentials of that account."
        )
    try:
        await read_whole(own, str(row.urn))
    except NotFoundError as error:
        await journal.ask(journal.intents.miss, row, error.message)
        return (
            "Run again: the next upload of the same content looks for it, and sends it again if the platform has lost "
            "it."
        )
    except PlatformError as error:
        return f"Whether {row.account}, which uploaded it, sees it, could not be read, so nothing is noted: {error}"
    return f"{row.account}, which uploaded it, sees it: pass that account's credentials, or upload it with this one's."


def _named(error: NotFoundError) -> list[str]:
    """Return the URNs of what a platform did not find."""
    path = unquote(str(error.data.get("path") or ""))
    blobs = [ivcap_urn("artifact", found) for found in _BLOB.findall(path)]
    return list(dict.fromkeys([*_URN.findall(f"{path} {error.message}"), *blobs]))


def _given(values: Iterable[Any]) -> list[str]:
    """Return the URNs and handles that were given to a task: Provena does not say what it did not find."""
    several = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    return [str(each) for each in several if isinstance(each, Handle | str)]
