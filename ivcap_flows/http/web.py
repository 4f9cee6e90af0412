"""Download a file from an address of the web, if the server has another version than the known one."""

from __future__ import annotations

import ipaddress
import os
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from ivcap_flows.errors import InputError, PlatformError, UnavailableError, UnreachableError
from ivcap_flows.handles import LocalFile
from ivcap_flows.http.body_form import LOOK, form_of, forms_of, is_page, media_type_of_form
from ivcap_flows.http.download import store
from ivcap_flows.http.pauses import Retries, broke_off
from ivcap_flows.http.pool import Pool
from ivcap_flows.http.session import Session, StreamedReply
from ivcap_flows.http.status import detail_of, redact
from ivcap_flows.media_types import UNKNOWN, essence, media_type_of
from ivcap_flows.threads import FILES

__all__ = ["Validators", "check_address", "fetch_if_changed"]

_MOVED: Final = (301, 302, 303, 307, 308)
_MOST_MOVES: Final = 10
_MOST_SHOWN: Final = 500
"""The characters of an address that an error names."""
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.(?!\Z)|\.?\Z))+", re.IGNORECASE
)
"""The name of a host (RFC 1123), also with the underscores that some have."""
_GZIP: Final = b"\x1f\x8b"
_MOST_SAID: Final = 200
"""The characters of an error's own words that an error repeats."""
_NO_LOGIN: Final = (
    "fetch_url does not log in to the server: give a link that needs no login, or download the file yourself."
)
_STEPS: Final[Mapping[int, str]] = {
    204: "It has no file there. Is the address right?",
    300: "There are several files. Give the address of one of them.",
    304: "That means unchanged, though it was asked for the whole file. A cache may be wrong: try again later.",
    401: _NO_LOGIN,
    403: _NO_LOGIN,
    407: "The proxy wants a login: state it in HTTPS_PROXY or HTTP_PROXY.",
}
"""What to do about a status that brings no file."""
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
    url: str,
    target: str | os.PathLike[str],
    known: Validators | None = None,
    *,
    before: LocalFile | None = None,
    media_type: str | None = None,
) -> tuple[LocalFile, Validators] | None:
    """Download an address into a file, which appears whole. Return None if the server still has the `known` version.

    Redirects are followed, except from https to http. What can pass is repeated for a minute, from the beginning if the
    content broke off. An encoding by the server is undone, but a file that is stored compressed stays so. Raises
    InputError if there is no such file at the address, or an error in its place: a web page, XML or JSON that is not
    the `media_type` and not what was there `before`, or nothing. Raises UnavailableError and UnreachableError if the
    server cannot give it now.
    """
    pool = Pool()
    try:
        retries = Retries(_session(url, pool).backoff, broke_off(f"download of {_shown(url)}"))
        while True:
            try:
                async with _reply(url, known.conditions if known is not None else {}, pool) as (place, reply):
                    if reply.status == 304:
                        return None
                    names = [urlsplit(url).path, urlsplit(place).path, os.fspath(target)]
                    content, size = await _as_stored(url, reply, names)
                    head, content = await _look(content, LOOK)
                    wanted = media_type or _expected(names[::-1])
                    await FILES.run(_refuse_error, url, target, reply, head, wanted, before)
                    file = await store(_pieces(content), target, size=size, urn=_shown(url))
                    return file, Validators(reply.headers.get("etag"), reply.headers.get("last-modified"))
            except UnreachableError as error:
                await retries.wait(error)
    finally:
        await pool.aclose()


@asynccontextmanager
async def _reply(url: str, conditions: Mapping[str, str], pool: Pool) -> AsyncIterator[tuple[str, StreamedReply]]:
    """Open the reply of an address, or of where it leads, with its place: 200, or 304 if there were conditions."""
    place = url
    for _ in range(_MOST_MOVES):
        session = _session(place, pool)
        headers = dict(conditions) or _ASKS_AGAIN
        try:
            async with session.stream(
                "GET", place, headers=headers, repeat="idempotent", expect=range(200, 400), encoded=True
            ) as reply:
                if reply.status == 200 or (reply.status == 304 and conditions):
                    yield place, reply
                    return
                if reply.status not in _MOVED:
                    said, _ = await _look(reply.blocks(), LOOK)
                    raise _refused(url, place, reply.status, redact(detail_of(said)))
                there = reply.headers.get("location", "")
                # What cannot be joined is no address either.
                with suppress(ValueError):
                    there = urljoin(place, there)
        except (UnreachableError, UnavailableError):
            raise
        except PlatformError as error:
            if error.data.get("status") is None:
                raise InputError(
                    f"What {_shown(url)} sends cannot be decoded: it is not in the encoding that the server states "
                    f"({error.detail}). Download it with `curl`, and look at it."
                ) from error
            raise _refused(url, place, error.status, error.detail) from error
        if place.startswith("https:") and not there.startswith("https:"):
            raise InputError(f"{_shown(url)} leads to {_shown(there)}, which is not encrypted. Is the address right?")
        place = there
    raise InputError(f"{_shown(url)} leads from one address to the next without an end. Is the address right?")


def _refused(url: str, place: str, status: int, said: str) -> InputError:
    """Return the error for a status that brings no file, with the next step."""
    answer = f"{urlsplit(place).hostname} answered {status}{f': {said}' if said else ''}".rstrip(".")
    return InputError(f"{_shown(url)} cannot be fetched: {answer}. {_STEPS.get(status, 'Is the address right?')}")


def check_address(url: str) -> None:
    """Raise InputError if no server can be asked for an address."""
    try:
        port, address = urlsplit(url).port, httpx.URL(url)
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


async def _as_stored(url: str, reply: StreamedReply, names: Sequence[str]) -> tuple[AsyncIterator[bytes], int | None]:
    """Return the content as the server stores it, and its size where that is known.

    Most encodings say how the server compressed a file now. Some say how the file is stored: Apache's `AddEncoding
    x-gzip .gz`. Names and type tell them apart, as in wget and Firefox; what is gzip twice was compressed now, too.
    """
    content, now = reply.blocks(), reply.encodings
    kinds = [*map(media_type_of, names), essence(reply.headers.get("content-type", ""))]
    stored = next((each for each in now[:1] if f"application/{each}" in (k.replace("/x-", "/") for k in kinds)), None)
    if stored is not None:
        now = now[1:]
    if stored == "gzip" and not now:
        head, content = await _look(content, LOOK)
        now = ["gzip"] if _opened(head).startswith(_GZIP) else []
    for encoding in reversed(now):
        if encoding not in ("gzip", "deflate"):
            raise InputError(
                f"{_shown(url)} comes in the encoding {encoding!r}, which was declined, and fetch_url cannot decode. "
                "Download it with `curl --compressed`, and use the file."
            )
        content = reply.unpacked(content)
    length = reply.headers.get("content-length", "")
    return content, int(length) if length.isdecimal() and not now else None


def _opened(head: bytes) -> bytes:
    """Return the beginning of what a gzip file contains; of another file, its own."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS + 16).decompress(head, LOOK) if head.startswith(_GZIP) else head
    except zlib.error:
        return head


def _expected(names: Sequence[str]) -> str:
    """Return the media type of the first name that has a known ending, before `.gz` if it has one."""
    inner = [name.lower().removesuffix(".gz") for name in names]
    return next((kind for kind in map(media_type_of, [*inner, *names]) if kind != UNKNOWN), UNKNOWN)


async def _look(blocks: AsyncIterator[bytes], size: int) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the first bytes, `size` or all, and the same blocks from the beginning."""
    head = bytearray()
    async for block in blocks:
        head += block
        if len(head) >= size:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for block in blocks:
            yield block

    return bytes(head[:size]), whole()


async def _pieces(blocks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[int, bytes], None]:
    position = 0
    async for block in blocks:
        yield position, block
        position += len(block)


def _refuse_error(
    url: str,
    target: str | os.PathLike[str],
    reply: StreamedReply,
    head: bytes,
    media_type: str,
    before: LocalFile | None,
) -> None:
    """Raise InputError for a body that is an error in place of the file."""
    stays = f" {os.fspath(target)} stays as it was." if os.path.exists(target) else ""
    if not head and before is not None and before.size:
        raise InputError(
            f"{_shown(url)} answers with nothing, where {before.size} bytes were before.{stays} "
            "If nothing is right, delete the file and fetch it again."
        )
    kind = reply.headers.get("content-type", "")
    head = head if essence(media_type) == "application/gzip" else _opened(head)
    form, right = form_of(head, kind), forms_of(media_type)
    if form is None or (right is not None and form in right):
        return
    stated = form == "a web page" and is_page(kind)
    if right is None and not stated and (before is None or form_of(_opened(_head_of(before))) == form):
        return
    said = redact(detail_of(head, limit=_MOST_SAID))
    raise InputError(
        f"{_shown(url)} answers with {form} instead of {media_type if right is not None else 'a file'}"
        f"{f': {said}' if said else ''}".rstrip(".")
        + f".{stays} Is the address right, or does the server want a login? "
        f"If {form} is right, state it: media_type={media_type_of_form(form)!r}."
    )


def _head_of(file: LocalFile) -> bytes:
    with open(file.path, "rb") as opened:
        return opened.read(LOOK)


def _shown(url: str) -> str:
    """Return the address without its query, which may contain a secret."""
    return url.partition("?")[0][:_MOST_SHOWN] or "An empty text"
