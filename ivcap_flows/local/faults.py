"""Faults on demand and a log of requests: the outermost layer of the server, before IVCAP and Provena alike.

A rule names what it hits (`method`, `path` as a regular expression searched in the path) and how often (`count`), and
one effect, to which `delay` and `late_visibility` may be added:

    status                    answer with this status before anything happens
    delay                     wait so many seconds, then go on
    reset                     reset the connection before anything happens
    drop_reply_after_effect   do everything, then reset the connection instead of replying
    truncate                  send only so many bytes of the reply's body, then reset the connection
    expire_token              answer 401 as for an expired token
    late_visibility           what the request makes is hidden from reads and lists for so many seconds
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcap_flows.local.clock import LATE

__all__ = ["TRANSPORT", "BadRuleError", "FaultLayer", "Rule", "parse_rule"]

TRANSPORT: Final = "ivcap_flows.transport"
"""Where the server's protocol leaves the connection's transport in the scope."""

_EFFECTS: Final[Mapping[str, type[bool] | type[int] | type[float]]] = {
    "status": int,
    "delay": float,
    "reset": bool,
    "drop_reply_after_effect": bool,
    "truncate": int,
    "expire_token": bool,
    "late_visibility": float,
}
_LOGGED: Final = 20_000


class BadRuleError(ValueError):
    """A rule that cannot be understood."""


@dataclass
class Rule:
    """`count` None means for ever; `hits` is how often the rule acted."""

    id: int
    method: str | None
    path: re.Pattern[str]
    count: int | None
    effects: dict[str, Any]
    hits: int = 0

    def applies(self, method: str, path: str) -> bool:
        left = self.count is None or self.hits < self.count
        return left and self.method in (None, method) and self.path.search(path) is not None

    def as_json(self) -> dict[str, Any]:
        matched = {
            "id": self.id,
            "method": self.method,
            "path": self.path.pattern,
            "count": self.count,
            "hits": self.hits,
        }
        return matched | self.effects


_numbers = itertools.count(1)


def parse_rule(value: Any) -> Rule:
    """Raises BadRuleError saying what is wrong."""
    if not isinstance(value, dict):
        raise BadRuleError("A rule is a JSON object.")
    unknown = set(value) - {"method", "path", "count", *_EFFECTS}
    if unknown:
        raise BadRuleError(f"A rule has no {', '.join(sorted(unknown))}; its effects are {', '.join(_EFFECTS)}.")
    given = {name: value.get(name) for name in _EFFECTS}
    effects: dict[str, Any] = {name: one for name, one in given.items() if one is not None and one is not False}
    if not effects:
        raise BadRuleError(f"A rule needs an effect: {', '.join(_EFFECTS)}.")
    for name, one in effects.items():
        if not _is_a(_EFFECTS[name], one):
            raise BadRuleError(f"{name} has the wrong type.")
    if not 200 <= effects.get("status", 500) <= 599:
        raise BadRuleError("status is an HTTP status from 200 to 599.")
    method, count = value.get("method"), value.get("count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise BadRuleError("count is a number of at least 1.")
    if method is not None and not isinstance(method, str):
        raise BadRuleError("method is the name of an HTTP method.")
    try:
        path = re.compile(str(value.get("path") or ""))
    except re.error as error:
        raise BadRuleError(f"path is no regular expression ({error}).") from None
    return Rule(next(_numbers), method.upper() if method else None, path, count, effects)


def _is_a(kind: type, value: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    number = isinstance(value, int) or (kind is float and isinstance(value, float))
    return number and not isinstance(value, bool) and value >= 0


@dataclass
class _Entry:
    """A request in the log; `received` is bytes of body, `status` what was replied or would have been."""

    method: str
    path: str
    query: str
    status: int | None = None
    received: int = 0
    dropped: bool = False

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class FaultLayer:
    """Wraps the whole server. Paths under `/_twin` are neither hit nor logged."""

    app: ASGIApp
    rules: list[Rule] = field(default_factory=list)
    log: deque[_Entry] = field(default_factory=lambda: deque(maxlen=_LOGGED))
    total: int = 0
    in_flight: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].startswith("//"):
            # Clients with a trailing slash on their base URL ask for `//1/...`.
            scope["path"] = "/" + scope["path"].lstrip("/")
            scope["raw_path"] = b"/" + scope.get("raw_path", b"").lstrip(b"/")
        self.in_flight += 1
        try:
            if scope["path"].startswith("/_twin"):
                await self.app(scope, receive, send)
            else:
                await self._watched(scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        entry = _Entry(scope["method"], scope["path"], query)
        self.log.append(entry)
        self.total += 1

        async def counted() -> Message:
            message = await receive()
            entry.received += len(message.get("body", b""))
            return message

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
            await send(message)

        rule = next((rule for rule in self.rules if rule.applies(entry.method, entry.path)), None)
        if rule is None:
            await self.app(scope, counted, noted)
            return
        rule.hits += 1
        await self._with_fault(rule.effects, entry, scope, counted, noted)

    async def _with_fault(
        self, effects: Mapping[str, Any], entry: _Entry, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if "delay" in effects:
            await asyncio.sleep(effects["delay"])
        late = LATE.set(float(effects.get("late_visibility", 0.0)))
        try:
            await self._act(effects, entry, scope, receive, send)
        finally:
            LATE.reset(late)

    async def _act(self, effects: Mapping[str, Any], entry: _Entry, scope: Scope, receive: Receive, send: Send) -> None:
        if effects.get("reset"):
            entry.dropped = True
            await _reset(scope, receive)
        elif effects.get("expire_token"):
            headers = [(b"www-authenticate", b'Bearer error="invalid_token"'), (b"goa-error", b"not-authorized")]
            await _reply(send, 401, "The bearer token has expired.", headers)
        elif "status" in effects:
            await _reply(send, effects["status"], "This fault was asked for.", [])
        elif effects.get("drop_reply_after_effect") or "truncate" in effects:
            entry.dropped = True
            await self._cut(effects.get("truncate"), entry, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _cut(self, keep: int | None, entry: _Entry, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application do its work, and send `keep` bytes of the body, or no reply at all for None."""
        left = keep or 0

        async def cut(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                if keep is not None:
                    await send(message)
            elif message["type"] == "http.response.body" and left:
                part = message.get("body", b"")[:left]
                left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": True})

        await self.app(scope, receive, cut)
        await _reset(scope, receive, flush=keep is not None)


async def _reply(send: Send, status: int, message: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = b"" if status in (204, 304) else json.dumps({"message": message}).encode()
    common = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": common + headers})
    await send({"type": "http.response.body", "body": body})


async def _reset(scope: Scope, receive: Receive, *, flush: bool = False) -> None:
    """Close the connection; with `flush` what was sent before gets through."""
    transport: asyncio.Transport = scope[TRANSPORT]
    if flush:
        transport.close()
    else:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    # Once the server has seen the end of the connection it does not miss the reply.
    while (await receive())["type"] != "http.disconnect":
        pass
