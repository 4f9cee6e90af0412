"""A platform in a folder, shared by processes: it loses replies, shows effects late, and kills its callers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ivcap_flows import durable
from ivcap_flows.durable import Caller, Effect, Found, MatchedBy, Performed, Resume
from ivcap_flows.errors import BadRequestError, RegistrationFailedError, UnreachableError
from ivcap_flows.http.confirm_send import confirm_send
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt

VISIBILITY_DELAY = 0.4


async def perform(
    effect: Effect[Any],
    *,
    journal: Journal,
    attempt: OpenedAttempt | None,
    platform: str,
    account: str,
    clock: Any = None,
    tries: Any = (),
    **options: Any,
) -> Performed[Any]:
    """As `durable.perform` does for a caller with these."""
    return await durable.perform(effect, Caller(journal, attempt, platform, account, clock, tries), **options)


class Platform:
    """A platform whose effects are files. `faults` are what happens to the next sends; "" means no fault."""

    def __init__(self, folder: Path, faults: Sequence[str] = ()) -> None:
        self.folder = folder
        self.faults = list(faults)
        self.sends: list[float] = []
        self.looks: list[float] = []
        self.by_content = False
        self.hangs = 0
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, key: str, request: Any, *, hidden: float = 0.0) -> str:
        """Accept a request. Its effect becomes visible `hidden` seconds later."""
        urn = f"urn:test:order:{uuid.uuid4()}"
        now = time.time()
        record = {"urn": urn, "key": key, "request": request, "at": now, "shown": now + hidden}
        temporary = self.folder / f"{uuid.uuid4()}.part"
        temporary.write_text(json.dumps(record))
        temporary.rename(self.folder / f"{uuid.uuid4()}.json")
        return urn

    def records(self) -> list[dict[str, Any]]:
        """Return all effects that the platform ever accepted, oldest first."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        return sorted(found, key=lambda record: record["at"])

    @property
    def urns(self) -> list[str]:
        return [record["urn"] for record in self.records()]

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, Any]:
        await confirm_send()
        self.sends.append(time.monotonic())
        fault = self.faults.pop(0) if self.faults else ""
        match fault:
            case "refuse":
                raise BadRequestError("no such parameter", status=400)
            case "fail the work":
                raise RegistrationFailedError("unknown dataset", session_id="s")
            case "no connection":
                raise UnreachableError("connection refused", sent=False)
            case "lost before":
                raise UnreachableError("time-out", sent=True)
            case "kill before":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                await self.hang()
            case "slow":
                await asyncio.sleep(0.6)
        hidden = {"late": VISIBILITY_DELAY / 2, "very late": 2 * VISIBILITY_DELAY}.get(fault, 0.0)
        urn = self.take(intent.key, intent.request, hidden=hidden)
        match fault:
            case "lost" | "late" | "very late":
                raise UnreachableError("time-out")
            case "kill after":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang after":
                await self.hang()
        return {"urn": urn}

    async def hang(self) -> None:
        self.hangs += 1
        await asyncio.sleep(60)

    async def find(self, intent: IntentRow) -> Sequence[Found[dict[str, Any]]]:
        self.looks.append(time.monotonic())
        found = []
        for record in self.records():
            matched_by: MatchedBy = "content" if self.by_content else "key"
            same = record["request"] == intent.request if self.by_content else record["key"] == intent.key
            if same and record["shown"] <= time.time():
                at = datetime.fromtimestamp(record["at"], timezone.utc)
                found.append(Found({"urn": record["urn"]}, record["urn"], at, matched_by))
        return found


def cut_off(platform: Platform, call: Coroutine[Any, Any, Any]) -> None:
    """Cancel a call as soon as its request hangs. A call whose request does not hang is run to its end."""
    before = platform.hangs

    async def cancelled() -> None:
        asked = asyncio.ensure_future(call)
        while platform.hangs == before and not asked.done():
            await asyncio.sleep(0.01)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked

    asyncio.run(cancelled())


class Aspects:
    """Idempotency records in a folder. The process dies after the write at which the count `kill_at` reaches zero."""

    def __init__(self, folder: Path, kill_at: int = 0) -> None:
        self.folder = folder
        self.kill_at = kill_at
        folder.mkdir(parents=True, exist_ok=True)

    def _records(self, key: str) -> list[Path]:
        return sorted(self.folder.glob(f"{key.replace(':', '_')}@*"), key=lambda path: float(path.name.split("@")[1]))

    async def read(self, key: str) -> dict[str, Any] | None:
        contents = [json.loads(path.read_text()) for path in self._records(key)]
        named = [content for content in contents if content.get("urn") is not None]
        return next(iter([*named, *contents]), None)

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
        mine = [path for path in self._records(key) if json.loads(path.read_text())["journal"] == content["journal"]]
        path = mine[0] if mine and not first else self.folder / f"{key.replace(':', '_')}@{time.time()}@{uuid.uuid4()}"
        path.write_text(json.dumps(content))
        self.kill_at -= 1
        if self.kill_at == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        contents = [json.loads(path.read_text()) for path in self._records(key)]
        return [other for other in contents if other["journal"] != content["journal"]]


@dataclass(frozen=True, kw_only=True)
class Scripted(Effect[dict[str, Any]]):
    """An effect whose value is a dict with a URN. The test decides what sending and finding return."""

    on_send: Callable[[IntentRow, Resume], Awaitable[dict[str, Any]]]
    on_find: Callable[[IntentRow], Awaitable[Sequence[Found[dict[str, Any]]]]]

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, Any]:
        return await self.on_send(intent, progress)

    async def find(self, intent: IntentRow) -> Sequence[Found[dict[str, Any]]]:
        return await self.on_find(intent)

    def encode(self, value: dict[str, Any]) -> Any:
        return value

    def decode(self, outcome: Any) -> dict[str, Any]:
        return dict(outcome)

    def urn(self, value: dict[str, Any]) -> str:
        return str(value["urn"])

    def placeholder(self, key: str) -> dict[str, Any]:
        return {"urn": f"urn:plan:{key}"}


def order(
    platform: Platform,
    request: Any = "x",
    *,
    once_per: OncePer = "account",
    discriminator: str | None = None,
    visibility_delay: float = VISIBILITY_DELAY,
    resumable: bool = False,
) -> Scripted:
    return Scripted(
        noun="order",
        request=request,
        on_send=platform.send,
        on_find=platform.find,
        visibility_delay=visibility_delay,
        once_per=once_per,
        discriminator=discriminator,
        subject="service",
        spends=True,
        resumable=resumable,
        announced=not resumable,
    )


def forget_platform_warnings() -> None:
    """Forget which warnings were given, since each is given only once per process."""
    from ivcap_flows.durable import intent_record, scopes

    with contextlib.suppress(AttributeError):
        intent_record._refused_on.clear()
        scopes._warned.clear()
