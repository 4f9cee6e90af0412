"""Replies: read whole, or block by block."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import httpx

from ivcap_flows.errors import ProtocolError

__all__ = ["Reply", "StreamedReply"]


_UNFINISHED: Final = re.compile(r"\s*|-|[.eE]\d*[eE]?[+-]?|\\?u?[0-9a-fA-F]{0,4}")
"""What is left of a text from the place where it is no longer JSON, where the rest of a number or escape is missing."""
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
        """Whether the reply says that its body is JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind == "application/json" or kind.endswith("+json")

    def json(self) -> Any:
        """The JSON value of the body. Raises ProtocolError when it is none."""
        if isinstance(self._value, Exception):
            raise self.violation("is no JSON") from self._value
        return self._value

    def check_whole(self) -> None:
        """Raise a ProtocolError of which `cut_off` is true for JSON that ends too early, however it was framed."""
        if self.is_json and self.body and isinstance(self._value, ValueError) and _ends_early(self._value):
            raise self.violation("breaks off in the middle of its JSON", cut_off=True)

    @cached_property
    def _value(self) -> Any:
        """The JSON value, or why there is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            return error

    def violation(self, fault: str, **data: Any) -> ProtocolError:
        """The error for a reply that the contract does not allow; `fault` completes "the reply …"."""
        return ProtocolError(
            f"The reply of {self.platform} to {self.method} {self.path} {fault}.",
            platform=self.platform,
            method=self.method,
            path=self.path,
            status=self.status,
            detail=fault,
            sent=True,
            **data,
        )


def _ends_early(error: ValueError) -> bool:
    """Whether JSON is missing its end, and not otherwise wrong."""
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
        self._response = response
        self._mapped = mapped

    async def blocks(self) -> AsyncIterator[bytes]:
        """The bytes as they arrive, not decoded. Raises UnreachableError when the stream breaks."""
        try:
            async for block in self._response.aiter_raw():
                yield block
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._mapped(error) from error
