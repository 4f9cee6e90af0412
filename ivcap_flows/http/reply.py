"""Replies: read whole, or block by block."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ivcap_flows.errors import ProtocolError

__all__ = ["Reply", "StreamedReply"]


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

    def json(self) -> Any:
        """The JSON value of the body. Raises ProtocolError when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise self.violation("is no JSON") from error

    def violation(self, fault: str) -> ProtocolError:
        """The error for a reply that the contract does not allow; `fault` completes "the reply …"."""
        return ProtocolError(
            f"The reply of {self.platform} to {self.method} {self.path} {fault}.",
            platform=self.platform,
            method=self.method,
            path=self.path,
            status=self.status,
            detail=fault,
            sent=True,
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
