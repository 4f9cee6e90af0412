"""One upload: the content first hashed, then sent once per content, continued where the platform stands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from ivcap_flows.durable import Effect, Found, Performed, Progress
from ivcap_flows.durable.scopes import expand
from ivcap_flows.errors import ForbiddenError, IntegrityError, NotFoundError, PlatformError
from ivcap_flows.handles import Artifact
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.tus import BLOCK
from ivcap_flows.identity import CONTENT_SCHEMA, Scope, key_of
from ivcap_flows.ivcap.artifacts import ArtifactRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import IntentRow
from ivcap_flows.tasks.call import IvcapCall
from ivcap_flows.tasks.sources import Source

__all__ = ["SMALL_AT_ONCE", "content_of", "upload", "uploaded"]

_READY_WAIT: Final = 30.0
"""Seconds within which an artifact whose bytes are all there becomes `ready`."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0

_PUBLISHED: Final = BLOCK
"""An upload of more bytes tells other journals that it has begun, and how far it is; a smaller one is over before they
would know, and tells them of its outcome alone."""

AT_ONCE: Final = 12
"""Uploads with one client at a time: more would hold as many blocks in memory."""
SMALL_AT_ONCE: Final = 32
"""Uploads with one client at a time that are over in one small request: more would wait for connections."""

_turns: WeakKeyDictionary[IvcapClient, dict[int, asyncio.Semaphore]] = WeakKeyDictionary()


async def upload(
    call: IvcapCall,
    source: Source,
    *,
    name: str | None,
    media_type: str,
    policy: str | None = None,
    collection: str | None = None,
    discriminator: str | None = None,
) -> Performed[Artifact]:
    """The artifact of this content, media type, policy and collection: known, adopted, continued, or made now."""
    effect = UploadEffect(
        call=call,
        source=source,
        request=_request(source, media_type, policy, collection),
        visibility_delay=0.0,
        discriminator=discriminator,
        subject=name,
        publishes_intent=source.size > _PUBLISHED,
        stall_timeout=call.client.visibility_delay,
    )
    async with _turn(call.client, AT_ONCE if effect.publishes_intent else SMALL_AT_ONCE):
        return await call.perform(effect, idempotency_records=call.keys)


@dataclass(frozen=True, kw_only=True)
class UploadEffect(Effect[Artifact]):
    """An artifact with its content, continued where the platform stands. `subject` is its name."""

    noun: str = "upload"
    scope: Scope = "account"
    resumable: bool = True
    call: IvcapCall
    source: Source

    async def send(self, intent: IntentRow, progress: Progress) -> Artifact:
        call, source = self.call, self.source
        record = await _begun(call, progress.stored, source.size, timeout=call.client.visibility_delay)
        try:
            if record is None:
                record = await call.client.artifacts.create(
                    name=self.subject,
                    media_type=self.request["media-type"],
                    size=source.size,
                    policy=self.request["policy"],
                    collection=self.request["collection"],
                )
                await progress.save({"urn": record.urn})
                await _all(
                    _send_new(call, record, source),
                    _state_content(call, record.urn, source, intent.key),
                    *([progress.tell()] if self.publishes_intent else []),
                )
            else:
                if not record.ready:
                    await _send_rest(call, record, source)
                if await content_of(call, record.urn) is None:
                    await _state_content(call, record.urn, source, intent.key)
        except IntegrityError:
            # Nobody goes on with a record that has other bytes than those of the key.
            await progress.save(None)
            if self.publishes_intent:
                await progress.tell()
            raise
        ready = await _until_ready(call, record.urn)
        return ready.handle(call.platform, sha256=source.sha256)

    async def find(self, intent: IntentRow) -> Sequence[Found[Artifact]]:
        # A record without bytes bears no key; `doctor` names those that a lost reply left behind.
        return []

    async def remote_progress(self, begun: Any) -> int | None:
        record = await _begun(self.call, begun, self.source.size, timeout=0.0)
        return None if record is None or record.ready else await self.call.client.artifacts.offset(record)

    def decode(self, outcome: Any) -> Artifact:
        return Artifact.model_validate(outcome)

    def placeholder(self, key: str) -> Artifact:
        return Artifact(
            urn=f"urn:ivcap-flows:planned:{key}",
            platform=self.call.platform,
            name=self.subject,
            sha256=self.source.sha256,
        )


def _request(source: Source, media_type: str, policy: str | None, collection: str | None) -> dict[str, Any]:
    return {
        "sha256": source.sha256,
        "size": source.size,
        "media-type": media_type,
        "policy": policy,
        "collection": collection,
    }


async def uploaded(call: IvcapCall, source: Source, media_type: str) -> AsyncIterator[str]:
    """The URNs under which this content is known: to the journal, newest first, then to the platform's idempotency
    record.
    """
    known = await call.journal.ask(call.journal.intents.where, noun="upload", mentions=source.sha256, limit=None)
    for row in reversed(known):
        if row.urn is not None and (row.platform, row.account) == (call.platform, call.account):
            yield row.urn
    key = key_of(
        platform=call.platform,
        account=call.account,
        scope=expand("account", run=None, flow=None),
        noun="upload",
        request=_request(source, media_type, None, None),
    )
    with contextlib.suppress(ForbiddenError):
        stated = await call.keys.read(key)
        if stated is not None and isinstance(stated.get("urn"), str):
            yield stated["urn"]


def _turn(client: IvcapClient, at_once: int) -> asyncio.Semaphore:
    """One of the uploads that go on at once; the others wait before they ask for anything."""
    return _turns.setdefault(client, {}).setdefault(at_once, asyncio.Semaphore(at_once))


async def _all(*steps: Awaitable[object]) -> None:
    """Do the steps at once, each to its end; raises what the first of them raised."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _send_new(call: IvcapCall, record: ArtifactRecord, source: Source) -> None:
    """Send the content of a record that was created just now, and may not show yet."""
    try:
        await _send_rest(call, record, source, offset=0)
    except NotFoundError:
        await _send_rest(call, await _shown(call, record.urn, call.client.visibility_delay), source)


async def _send_rest(call: IvcapCall, record: ArtifactRecord, source: Source, offset: int | None = None) -> None:
    """Send the content from `offset` on, by default from where the platform stands."""
    artifacts = call.client.artifacts
    await artifacts.send(record, source.path, offset=offset, state=source.state, sha256=source.sha256)


async def _shown(call: IvcapCall, urn: str, timeout: float) -> ArtifactRecord:
    """The record, as soon as it shows; NotFoundError if it does not within `timeout` seconds."""
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

    again = AsyncRetrying(
        retry=retry_if_exception_type(NotFoundError),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
        stop=stop_after_delay(timeout),
        reraise=True,
    )
    return await again(call.client.artifacts.read, urn)


async def _begun(call: IvcapCall, stored: Any, size: int, *, timeout: float) -> ArtifactRecord | None:
    """The record that an earlier try or another journal created, if the platform has it still and it can be this."""
    urn = stored.get("urn") if isinstance(stored, dict) else None
    if not isinstance(urn, str):
        return None
    try:
        record = await _shown(call, urn, timeout)
    except NotFoundError:
        return None
    return None if record.status == "error" or record.known_size not in (None, size) else record


async def _until_ready(call: IvcapCall, urn: str) -> ArtifactRecord:
    loop = asyncio.get_running_loop()
    end, pauses = loop.time() + _READY_WAIT, Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        record = await _shown(call, urn, call.client.visibility_delay)
        # A platform may leave an artifact of no bytes as pending: there is nothing to wait for.
        if record.ready or record.size == 0:
            return record
        if record.status == "error" or loop.time() > end:
            raise IntegrityError(
                f"All bytes of {urn} were sent, and its status is {record.status!r} after {_READY_WAIT:g} s. "
                "Run the task again: it looks where the platform stands.",
                urn=urn,
                expected="ready",
                found=record.status,
            )
        await pauses.sleep()


async def _state_content(call: IvcapCall, urn: str, source: Source, key: str) -> None:
    """State the digest on the platform, and the key by which a second artifact of one upload is known.

    A policy that forbids it costs other machines the check, nothing else.
    """
    content = {"$schema": CONTENT_SCHEMA, "$entity": urn, "sha256": source.sha256, "size": source.size, "key": key}
    try:
        await call.client.aspects.add(urn, CONTENT_SCHEMA, content)
    except ForbiddenError:
        return


async def content_of(call: IvcapCall, urn: str) -> str | None:
    """The sha256 that an aspect on the artifact states."""
    try:
        async for record in call.client.aspects.list(entity=urn, schema=CONTENT_SCHEMA, order_direction="ASC", limit=1):
            said = record.content.get("sha256") if isinstance(record.content, dict) else None
            return said if isinstance(said, str) else None
    except PlatformError as error:
        if error.retryable:
            raise
    return None
