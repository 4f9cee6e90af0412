"""Replies: read whole, or block by block."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import unescape
from typing import Any, Final

import httpx

from ivcap_flows.errors import MisfitReplyError, ProtocolError
from ivcap_flows.media_types import essence
from ivcap_flows.threads import FILES

__all__ = ["Reply", "StreamedReply", "encodings_of"]


_UNFINISHED: Final = re.compile(r"\s*|-|[.eE]\d*[eE]?[+-]?|\\?u?[0-9a-fA-F]{0,4}")
"""The rest of a text after which JSON cannot be parsed, if only the end of a number or escape is missing."""
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.DOTALL | re.IGNORECASE)
_WORDS: Final = ("true", "false", "null")


@dataclass(frozen=True)
class Reply:
    """A reply read whole. Header names are case-insensitive."""

    platform: str
    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")

    @property
    def is_json(self) -> bool:
        """Whether the Content-Type of the reply is JSON."""
        kind = essence(self.headers.get("content-type", ""))
        return kind == "application/json" or kind.endswith("+json")

    @property
    def has_json(self) -> bool:
        """Whether the body is JSON, whatever the Content-Type says."""
        return not isinstance(self._value, Exception)

    def json(self) -> Any:
        """Return the JSON value of the body. Raises ProtocolError, which says what came, if it is not JSON."""
        if isinstance(self._value, Exception):
            title = _TITLE.search(self.text)
            kind = self.headers.get("content-type") or "of no stated type"
            came = f"a web page with the title {' '.join(unescape(title[1]).split())[:200]!r}" if title else kind
            raise self.violation(f"is no JSON, but {came}") from self._value
        return self._value

    def check_whole(self) -> None:
        """Raise MisfitReplyError if the JSON is truncated, whatever the HTTP framing says."""
        if self.is_json and self.body and isinstance(self._value, ValueError) and _ends_early(self._value):
            raise self.violation("breaks off in the middle of its JSON", MisfitReplyError)

    @cached_property
    def _value(self) -> Any:
        """The JSON value, or the error of parsing it."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            return error

    def violation(self, fault: str, kind: type[ProtocolError] = ProtocolError) -> ProtocolError:
        """Return the error for a reply that breaks the contract; `fault` completes "the reply …"."""
        return kind(
            f"The reply of {self.platform} to {self.method} {self.path} {fault}.",
            platform=self.platform,
            method=self.method,
            path=self.path,
            status=self.status,
            detail=fault,
            sent=True,
        )


def _ends_early(error: ValueError) -> bool:
    """Return whether the only fault of a JSON text is that its end is missing."""
    if isinstance(error, UnicodeDecodeError):
        return error.reason == "unexpected end of data"
    if not isinstance(error, json.JSONDecodeError):
        return False
    rest = error.doc[error.pos :]
    return (
        error.msg.startswith("Unterminated string")
        or any(word.startswith(rest) for word in _WORDS)
        or _UNFINISHED.fullmatch(rest) is not None
    )


class StreamedReply:
    """A reply whose body is read block by block, once."""

    def __init__(self, response: httpx.Response, mapped: Callable[[Exception], Exception]) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.encodings = encodings_of(response)
        self._response = response
        self._mapped = mapped

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they arrive, not decoded. Raises UnreachableError if the stream breaks."""
        try:
            async for block in self._response.aiter_raw():
                yield block
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._mapped(error) from error

    async def unpacked(self, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield the content of blocks in gzip or deflate. Raises UnreachableError if its end is missing.

        A gzip file may consist of several members, of which httpx decodes the first.
        """
        part = None
        async for packed in blocks:
            while packed:
                part = part or zlib.decompressobj(zlib.MAX_WBITS + 32)
                try:
                    block = await FILES.run(part.decompress, packed)
                except zlib.error as error:
                    raise self._mapped(httpx.DecodingError(str(error))) from error
                if block:
                    yield block
                # After a member, zeros are padding.
                packed, part = (part.unused_data.lstrip(b"\0"), None) if part.eof else (b"", part)
        if part is not None:
            raise self._mapped(httpx.RemoteProtocolError("what it compressed has no end"))


def encodings_of(response: httpx.Response) -> list[str]:
    """Return the content encodings of a body, in the order in which they were applied (RFC 9110, section 8.4)."""
    named = (name.strip().lower() for name in response.headers.get_list("content-encoding", split_commas=True))
    return [name.removeprefix("x-") for name in named if name not in ("", "identity")]
