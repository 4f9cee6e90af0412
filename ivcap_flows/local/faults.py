"""Faults for tests, and a log of requests: the layer of the server around IVCAP and Provena.

A rule selects requests (`method`, and `path`, a regular expression that is searched in the path), how often it acts
(`count`) and with which `probability` (0 to 1, from a random generator per rule; `seed` makes it repeatable). It has
one effect:

    status                    reply with this status, in the form that the platform there uses; nothing happens
    expire_token              reply as for an expired token
    reset                     reset the connection before anything happens
    drop_reply_after_effect   do everything, then reset the connection instead of replying
    truncate                  send only that many bytes of the reply's body, then reset the connection
    storage_full              nothing can be stored, neither records nor bytes
    kill_worker               Provena only: selects no request but a job whose sub type `path` matches; its worker
                              dies `before`, `amid` or `after` its work, and the job stays IN_PROGRESS for ever
    end_job                   Provena only, a job as above: it is `failed` amid its work, so that the registry has what
                              the graph lacks; or all is done, and its row goes back to `pending` for ever

or one or more of these, alone or beside it:

    delay                     wait that many seconds, then continue
    at_once                   process at most that many of the selected requests at the same time; the others wait in
                              order of arrival, `delay` is the time to process each, and a caller that disconnects
                              does not stop its request
    lost_after                the reply is lost that many seconds after the request arrived: a gateway replies 504
                              instead, and the request is processed all the same
    late_visibility           hide what the request creates from reads and lists for that many seconds
    late_in_lists             hide what the request creates from lists for that many seconds; reads by id find it
                              (IVCAP's nouns and Provena's registry items)

Seconds of visibility pass on the platforms' clock. Provena's jobs use the machine's time only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ivcap_flows.local.clock import LATE, LATE_IN_LISTS
from ivcap_flows.local.directory import OUT_OF_SPACE
from ivcap_flows.local.refusals import expired, refusal

__all__ = ["TRANSPORT", "FaultLayer", "Rule", "parse_rule", "reply"]

TRANSPORT: Final = "ivcap_flows.transport"
"""The key in the scope under which the server's protocol puts the connection's transport."""

_MAIN: Final[Mapping[str, type[bool] | type[int] | type[float] | type[str]]] = {
    "status": int,
    "expire_token": bool,
    "reset": bool,
    "drop_reply_after_effect": bool,
    "truncate": int,
    "storage_full": bool,
    "kill_worker": str,
    "end_job": str,
}
_EFFECTS: Final = {
    **_MAIN,
    "delay": float,
    "at_once": int,
    "lost_after": float,
    "late_visibility": float,
    "late_in_lists": float,
}
_OF_JOBS: Final = {"kill_worker": ("before", "amid", "after"), "end_job": ("failed", "pending")}
"""Effect on jobs -> its values."""
_MATCHED: Final = ("method", "path", "count", "probability", "seed")
_LOGGED: Final = 20_000


@dataclass
class Rule:
    """One rule. `count` None means no limit; `hits` is how often the rule has acted."""

    id: int
    method: str | None
    path: re.Pattern[str]
    count: int | None
    effects: dict[str, Any]
    probability: float = 1.0
    seed: int | None = None
    hits: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - which request fails is not a secret
        places = self.effects.get("at_once")
        self.places = None if places is None else asyncio.Semaphore(places)

    def applies(self, method: str, path: str) -> bool:
        """Return whether the rule acts on this request. Each matching request is one random draw."""
        left = self.count is None or self.hits < self.count
        matches = left and self.method in (None, method) and self.path.search(path) is not None
        return matches and self.job_fault is None and self._draw()

    @property
    def job_fault(self) -> str | None:
        """What befalls a job; None for a rule about requests."""
        return next((self.effects[name] for name in _OF_JOBS if name in self.effects), None)

    def befalls(self, sub_type: str) -> bool:
        """As `applies`, for a job."""
        left = self.count is None or self.hits < self.count
        matches = left and self.job_fault is not None and self.path.search(sub_type) is not None
        return matches and self._draw()

    def _draw(self) -> bool:
        return self.probability >= 1 or self._random.random() < self.probability

    def as_json(self) -> dict[str, Any]:
        matched = {
            "id": self.id,
            "method": self.method,
            "path": self.path.pattern,
            "count": self.count,
            "probability": self.probability,
            "seed": self.seed,
            "hits": self.hits,
        }
        return matched | self.effects


_numbers = itertools.count(1)


def parse_rule(value: Any) -> Rule:
    """Read a rule. Raises ValueError with the reason."""
    if not isinstance(value, dict):
        raise ValueError("A rule must be a JSON object.")
    unknown = set(value) - {*_MATCHED, *_EFFECTS}
    if unknown:
        raise ValueError(
            f"A rule has no {', '.join(sorted(unknown))}; its fields are {', '.join(_MATCHED)}, its effects "
            f"{', '.join(_EFFECTS)}."
        )
    method, count, probability, seed = (value.get(name) for name in ("method", "count", "probability", "seed"))
    if count is not None and not (_is_a(int, count) and count >= 1):
        raise ValueError("count must be a number of at least 1.")
    if probability is not None and not (_is_a(float, probability) and probability <= 1):
        raise ValueError("probability must be a number from 0 to 1.")
    if seed is not None and (not _is_a(int, seed) or probability is None):
        raise ValueError("seed must be a number of at least 0, and needs a probability.")
    if method is not None and not isinstance(method, str):
        raise ValueError("method must be the name of an HTTP method.")
    return Rule(
        next(_numbers),
        method.upper() if method else None,
        _pattern(value.get("path")),
        count,
        _effects(value),
        1.0 if probability is None else float(probability),
        seed,
    )


def _pattern(path: Any) -> re.Pattern[str]:
    try:
        return re.compile(str(path or ""))
    except re.error as error:
        raise ValueError(f"path is not a regular expression ({error}).") from None


def _effects(value: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value.get(name) for name in _EFFECTS}
    effects: dict[str, Any] = {name: one for name, one in given.items() if one is not None and one is not False}
    if not effects:
        raise ValueError(f"A rule needs an effect: {', '.join(_EFFECTS)}.")
    for name, one in effects.items():
        if not _is_a(_EFFECTS[name], one):
            raise ValueError(f"{name} has the wrong type.")
    if not 200 <= effects.get("status", 500) <= 599:
        raise ValueError("status must be an HTTP status from 200 to 599.")
    if effects.get("at_once", 1) < 1:
        raise ValueError("at_once must be a number of at least 1.")
    for name, known in _OF_JOBS.items():
        if name in effects and effects[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}.")
        if name in effects and (len(effects) > 1 or value.get("method") is not None):
            raise ValueError(f"{name} applies to jobs, so the rule can have no method and no other effect.")
    for group in (_MAIN, ("late_visibility", "late_in_lists")):
        both = [name for name in group if name in effects]
        if len(both) > 1:
            raise ValueError(f"{' and '.join(both)} exclude each other; write one rule for each.")
    return effects


def _is_a(kind: type, value: Any) -> bool:
    if kind in (bool, str):
        return isinstance(value, kind)
    number = isinstance(value, int) or (kind is float and isinstance(value, float))
    return number and not isinstance(value, bool) and value >= 0


@dataclass
class _Entry:
    """A request in the log.

    `received` is the bytes of its body; `status` is the status sent, or that would have been sent.
    """

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
    """Wraps the whole server. Paths under `/_embedded` are neither affected nor logged.

    The first of `rules` that applies acts. All `manners` that apply act too; they imitate another server (likeness.py).
    If several have the same effect, the rule's value counts, else that of the first of them.
    """

    app: ASGIApp
    rules: list[Rule] = field(default_factory=list)
    manners: list[Rule] = field(default_factory=list)
    log: deque[_Entry] = field(default_factory=lambda: deque(maxlen=_LOGGED))
    total: int = 0
    in_flight: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].startswith("//"):
            # Clients whose base URL has a trailing slash request `//1/...`.
            scope["path"] = "/" + scope["path"].lstrip("/")
            scope["raw_path"] = b"/" + scope.get("raw_path", b"").lstrip(b"/")
        self.in_flight += 1
        try:
            if scope["path"].startswith("/_embedded"):
                await self.app(scope, receive, send)
            else:
                await self._watched(scope, receive, send)
        finally:
            self.in_flight -= 1

    def job_fault(self, sub_type: str) -> str | None:
        """Return what befalls a job by a rule, a value of `kill_worker` or `end_job`; None if no rule selects it."""
        rule = next((rule for rule in self.rules if rule.befalls(sub_type)), None)
        if rule is None:
            return None
        rule.hits += 1
        return rule.job_fault

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

        first = next((rule for rule in self.rules if rule.applies(entry.method, entry.path)), None)
        acting = [first] if first is not None else []
        acting += [rule for rule in self.manners if rule.applies(entry.method, entry.path)]
        if not acting:
            await self.app(scope, counted, noted)
            return
        effects: dict[str, Any] = {}
        for rule in acting:
            rule.hits += 1
            effects = rule.effects | effects
        if effects.keys() & {"at_once", "lost_after"}:
            places = next((rule.places for rule in acting if rule.places is not None), None)
            await self._in_turn(places, effects, entry, scope, counted, noted)
        else:
            await self._with_fault(effects, entry, scope, counted, noted)

    async def _in_turn(
        self,
        places: asyncio.Semaphore | None,
        effects: Mapping[str, Any],
        entry: _Entry,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Process a request in its turn, whether or not its caller still waits for the reply."""
        body = await _whole(receive)
        if body is None:
            return
        begun = lost = False

        async def unless_lost(message: Message) -> None:
            nonlocal begun
            if lost:
                entry.status = message.get("status", entry.status)
            else:
                begun = True
                await send(message)

        async def worked() -> None:
            async with places or contextlib.nullcontext():
                await self._with_fault(effects, entry, scope, body, unless_lost)

        work = asyncio.create_task(worked())
        try:
            await asyncio.wait({work}, timeout=effects.get("lost_after"))
            if not work.done() and not begun:
                lost = entry.dropped = True
                await reply(send, refusal(entry.path, 504, "Endpoint request timed out"))
            await work
        finally:
            work.cancel()

    async def _with_fault(
        self, effects: Mapping[str, Any], entry: _Entry, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if "delay" in effects:
            await asyncio.sleep(effects["delay"])
        late = LATE.set(float(effects.get("late_visibility", 0.0)))
        in_lists = LATE_IN_LISTS.set(float(effects.get("late_in_lists", 0.0)))
        full = OUT_OF_SPACE.set(bool(effects.get("storage_full")))
        try:
            await self._act(effects, entry, scope, receive, send)
        finally:
            OUT_OF_SPACE.reset(full)
            LATE_IN_LISTS.reset(in_lists)
            LATE.reset(late)

    async def _act(self, effects: Mapping[str, Any], entry: _Entry, scope: Scope, receive: Receive, send: Send) -> None:
        if effects.get("reset"):
            entry.dropped = True
            await _reset(scope, receive)
        elif effects.get("expire_token"):
            await reply(send, expired(entry.path))
        elif "status" in effects:
            await reply(send, refusal(entry.path, effects["status"], "A rule injected this fault."))
        elif effects.get("drop_reply_after_effect") or "truncate" in effects:
            entry.dropped = True
            await self._cut(effects.get("truncate"), entry, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _cut(self, keep: int | None, entry: _Entry, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application process the request, then send `keep` bytes of the body, or no reply at all for None."""
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


async def _whole(receive: Receive) -> Receive | None:
    """Read a request's whole body and return it as an application receives it; None if the caller disconnected."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    messages: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def reply(send: Send, answer: tuple[int, Mapping[str, str], bytes]) -> None:
    """Send a whole reply: status, headers, body."""
    status, headers, body = answer
    length = {} if status in (204, 304) else {"Content-Length": str(len(body))}
    raw = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in {**headers, **length}.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _reset(scope: Scope, receive: Receive, *, flush: bool = False) -> None:
    """Close the connection. With `flush`, the bytes sent before still arrive."""
    transport: asyncio.Transport = scope[TRANSPORT]
    if flush:
        transport.close()
    else:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    # After the server has seen the end of the connection, it does not complain about a missing reply.
    while (await receive())["type"] != "http.disconnect":
        pass
