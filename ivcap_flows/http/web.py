"""Download a file from an address of the web, if the server has another version than the known one."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from ivcap_flows.errors import InputError, PlatformError, UnavailableError, UnreachableError
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.download import store
from ivcap_flows.http.pauses import Breaks
from ivcap_flows.http.pool import Pool
from ivcap_flows.http.session import Session, StreamedReply

__all__ = ["Validators", "check_address", "fetch_if_changed"]

_MOVED: Final = (301, 302, 303, 307, 308)
_MOST_MOVES: Final = 10
_MOST_SHOWN: Final = 500
"""The characters of an address that an error names."""
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.(?!\Z)|\.?\Z))+", re.IGNORECASE
)
"""The name of a host (RFC 1123), also with the underscores that some have."""
_PAGES: Final = (".htm", ".html", ".xhtml")
_ASKS_AGAIN: Final = {"Cache-Control": "no-cache", "Pragma": "no-cache"}


@dataclass(frozen=True)
class Validators:
    """How a server names a version of what it has at an address: the headers ETag and Last-Modified (RFC 9110)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """The headers of a request that is answered only if there is another version."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value}


async def fetch_if_changed(
    url: str, target: str | os.PathLike[str], known: Validators | None = None
) -> tuple[LocalFile, Validators] | None:
    """Download an address into a file, which appears whole. Return None if the server still has the `known` version.

    Redirects are followed, except from https to http. What can pass is repeated for a minute, from the beginning if the
    content broke off. Raises InputError if there is no such file at the address, or a web page in its place;
    UnavailableError and UnreachableError if the server cannot give it now.
    """
    pool = Pool()
    try:
        breaks = Breaks(_session(url, pool).backoff)
        while True:
            try:
                async with _reply(url, known.conditions if known is not None else {}, pool) as reply:
                    if reply.status == 304:
                        return None
                    _refuse_page(url, target, reply)
                    length = reply.headers.get("content-length", "")
                    size = int(length) if length.isdecimal() else None
                    file = await store(_pieces(reply), target, size=size, urn=_shown(url))
                    return file, Validators(reply.headers.get("etag"), reply.headers.get("last-modified"))
            except UnreachableError as error:
                await breaks.wait(error, f"download of {_shown(url)}")
    finally:
        await pool.aclose()


@asynccontextmanager
async def _reply(url: str, conditions: Mapping[str, str], pool: Pool) -> AsyncIterator[StreamedReply]:
    """Open the reply of an address, or of where it leads: 200, or 304 if there were conditions."""
    place = url
    for _ in range(_MOST_MOVES):
        session = _session(place, pool)
        headers = dict(conditions) or _ASKS_AGAIN
        try:
            async with session.stream(
                "GET",
                place,
                headers=headers,
                repeat="idempotent",
                expect=(200, *_MOVED, *([304] if conditions else [])),
            ) as reply:
                if reply.status not in _MOVED:
                    yield reply
                    return
                there = urljoin(place, reply.headers.get("location", ""))
        except (UnreachableError, UnavailableError):
            raise
        except PlatformError as error:
            raise InputError(f"{_shown(url)} cannot be fetched: {error.message} Is the address right?") from error
        if place.startswith("https:") and not there.startswith("https:"):
            raise InputError(f"{_shown(url)} leads to {_shown(there)}, which is not encrypted. Is the address right?")
        place = there
    raise InputError(f"{_shown(url)} leads from one address to the next without an end. Is the address right?")


def check_address(url: str) -> None:
    """Raise InputError if no server can be asked for an address."""
    try:
        address, port = httpx.URL(url), urlsplit(url).port
        # An internationalized name is checked by its other form.
        host = address.raw_host.decode("ascii") if address.host else ""
        fault = _fault_of(url, address.scheme, host, port)
    except (httpx.InvalidURL, ValueError) as error:
        fault = str(error).rstrip(".")
    if fault is not None:
        reason = f" ({fault})" if fault else ""
        raise InputError(f"{_shown(url)} is no address of the web, such as https://example.org/table.csv{reason}.")
    if address.userinfo:
        raise InputError(f"{host}: an address with a user name or password would show it. Leave it out.")


def _fault_of(url: str, scheme: str, host: str, port: int | None) -> str | None:
    if url != url.strip():
        return "a blank is before or after it"
    if scheme not in ("http", "https") or not host:
        return ""
    if ":" in host:
        ipaddress.IPv6Address(host)
    elif not _NAME.fullmatch(host):
        return "no host has this name"
    return "its port is 0" if port == 0 else None


def _session(url: str, pool: Pool) -> Session:
    check_address(url)
    parts = urlsplit(url)
    return Session(f"{parts.scheme}://{parts.netloc}", platform=str(parts.hostname), pool=pool)


async def _pieces(reply: StreamedReply) -> AsyncGenerator[tuple[int, bytes], None]:
    position = 0
    async for block in reply.blocks():
        yield position, block
        position += len(block)


def _refuse_page(url: str, target: str | os.PathLike[str], reply: StreamedReply) -> None:
    """Raise InputError for a web page, which servers give in place of a file that moved or needs a login."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not os.fspath(target).lower().endswith(_PAGES):
        raise InputError(f"{_shown(url)} answers with a web page ({kind}) instead of a file. Is the address right?")


def _shown(url: str) -> str:
    """Return the address without its query, which may contain a secret."""
    return url.partition("?")[0][:_MOST_SHOWN] or "An empty text"
