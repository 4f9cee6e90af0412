"""Base class and helpers for all records of the IVCAP API: hyphenated names, newer servers, ids and times."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from ivcap_flows.errors import InputError, ProtocolError
from ivcap_flows.http.paging import paged, pages
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.identity import is_utf8

__all__ = [
    "Instant",
    "Text",
    "Wire",
    "instant",
    "listed",
    "listed_pages",
    "record_of",
    "replied",
    "segment",
    "urn_argument",
]


class Wire(BaseModel):
    """Base of the records. Unknown fields are kept, statuses are plain strings, optional fields may be null."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        defer_build=True,
        populate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


W = TypeVar("W", bound=Wire)

Instant = Annotated[
    datetime | None,
    BeforeValidator(lambda value: value or None),
    AfterValidator(lambda value: value.replace(tzinfo=timezone.utc) if value and value.tzinfo is None else value),
]
"""A time of the platform. An empty string becomes None; a time without an offset is taken as UTC."""

Text = Annotated[str | None, BeforeValidator(lambda value: value or None)]
"""An optional text. Some deployments send an empty string for a missing one; it becomes None."""


def record_of(cls: type[W], value: Any, *, session: Session, path: str) -> W:
    """Read a record from a JSON value. Raises ProtocolError with the names of missing or invalid fields."""
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) or "the whole" for fault in error.errors()}))
        fault = f"is no {cls.__name__}: wrong or missing {fields}"
        raise ProtocolError(
            f"The reply of {session.platform} to {path} {fault}.",
            platform=session.platform,
            method="GET",
            path=path,
            status=200,
            detail=fault,
            sent=True,
        ) from error


def replied(cls: type[W], reply: Reply, session: Session) -> W:
    """Read the record in the body of a reply."""
    return record_of(cls, reply.json(), session=session, path=reply.path)


async def listed(
    cls: type[W], session: Session, path: str, params: Mapping[str, Any], limit: int | None
) -> AsyncIterator[W]:
    """Yield the records of a paged list. A page is requested when its first record is needed."""
    async for item in paged(session, path, params=params, limit=limit):
        yield record_of(cls, item, session=session, path=path)


async def listed_pages(
    cls: type[W], session: Session, path: str, params: Mapping[str, Any]
) -> AsyncGenerator[list[W], None]:
    """Yield the records of a paged list, page by page. Each page is one request, sent when the page is needed."""
    async with aclosing(pages(session, path, params=params)) as found:
        async for page in found:
            yield [record_of(cls, item, session=session, path=path) for item in page]


def segment(urn: str) -> str:
    """Quote an id as one path segment, with raw colons as the official clients send it.

    Raises InputError for an id that a server or gateway might read as more than one segment.
    """
    if set(urn_argument(urn, "id")) & set("/\\?#%"):
        raise InputError(f"The id must be a URN or id of the platform, not {urn!r}.")
    return quote(urn, safe=":")


def urn_argument(value: str, what: str, prefix: str = "") -> str:
    """Return the value. Raises InputError if it is empty, contains white space or does not start with the prefix."""
    # A string that splits into exactly itself is not empty and contains no white space.
    if not isinstance(value, str) or value.split() != [value] or not value.startswith(prefix) or not is_utf8(value):
        wanted = f"a URN beginning with {prefix}" if prefix else "a URN or id"
        raise InputError(f"The {what} must be {wanted}, not {value!r}.")
    return value


def instant(value: datetime | None) -> str | None:
    """Format a time as RFC 3339 with an offset.

    Raises InputError for a time without an offset, which a server would read as a different time.
    """
    if value is None:
        return None
    if value.tzinfo is None:
        raise InputError(f"The time {value.isoformat()} has no offset; give it one, for instance timezone.utc.")
    return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
