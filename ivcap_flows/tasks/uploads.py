"""Upload content once: hash it, then send it, or continue an upload from the bytes that the platform has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from ivcap_flows.durable import Effect, Found, Performed, Resume, planning
from ivcap_flows.durable.scopes import expand
from ivcap_flows.errors import ForbiddenError, IntegrityError, NotFoundError, PlatformError
from ivcap_flows.handles import Artifact
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.tus import BLOCK
from ivcap_flows.identity import CONTENT_SCHEMA, RECORD_VERSION, OncePer, foremost, key_of
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.ivcap.artifacts import ArtifactRecord
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import IntentRow
    from ivcap_flows.tasks.call import IvcapCall
    from ivcap_flows.tasks.sources import UploadSource

__all__ = ["SMALL_AT_ONCE", "content_of", "read_whole", "upload", "uploaded"]

logger = logger_of("ivcap_flows.tasks")

_READY_WAIT: Final = 30.0
"""Seconds to wait until an artifact with all its bytes becomes `ready`, and more by its size."""
_READY_RATE: Final = 10_000_000
"""Bytes a second with which a platform may still put an artifact together once it has them."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0

AT_ONCE: Final = 12
"""Maximum number of large uploads at once with one client. Each holds a block in memory."""
SMALL_AT_ONCE: Final = 32
"""Maximum number of small uploads, of one request each, at once with one client. More would wait for connections."""

_turns: WeakKeyDictionary[IvcapClient, dict[int, asyncio.Semaphore]] = WeakKeyDictionary()


async def upload(
    call: IvcapCall,
    source: UploadSource,
    *,
    name: str | None,
    media_type: str,
    policy: str | None = None,
    collection: str | None = None,
    discriminator: str | None = None,
) -> Performed[Artifact]:
    """Return the artifact with this content, media type, policy and collection.

    It may be known to the journal, adopted from the platform, the completion of an interrupted upload, or new.
    """
    effect = UploadEffect(
        call=call,
        source=source,
        request=_request(source, media_type, policy, collection),
        visibility_delay=0.0,
        discriminator=discriminator,
        subject=name,
    )
    async with _turn(call.client, AT_ONCE if source.size > BLOCK else SMALL_AT_ONCE):
        return await call.perform(effect, idempotency_records=call.records)


@dataclass(frozen=True, kw_only=True)
class UploadEffect(Effect[Artifact]):
    """Uploading an artifact, continued from the bytes that the platform has. `subject` is its name."""

    noun: str = "upload"
    once_per: OncePer = "account"
    resumable: bool = True
    announced: bool = False
    call: IvcapCall
    source: UploadSource

    async def send(self, intent: IntentRow, progress: Resume) -> Artifact:
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
                await _all(_send_new(call, record, source), _state_content(call, record.urn, source, intent.key))
            else:
                if not record.ready:
                    await _send_rest(call, record, source)
                if await content_of(call, record.urn) is None:
                    await _state_content(call, record.urn, source, intent.key)
        except IntegrityError:
            # The platform's bytes are not those of the key. Forget the record, so that no process continues it.
            await progress.save(None)
            raise
        ready = await _until_ready(call, record.urn, source.size)
        return ready.handle(call.platform, sha256=source.sha256)

    async def find(self, intent: IntentRow) -> Sequence[Found[Artifact]]:
        # A record without bytes has no key. `doctor` lists those that remained after a lost reply.
        if intent.urn is None:
            return []
        seconds = 0.0 if planning() is not None else self.call.client.visibility_delay
        logger.warning(
            "%s is missing on the platform (%s). If it does not show within %g s, its content is uploaded again.",
            *(intent.urn, intent.error, seconds),
        )
        try:
            there = await _shown(self.call, intent.urn, seconds, read_whole)
        except NotFoundError:
            return []
        return [Found(there.handle(self.call.platform, sha256=self.source.sha256), there.urn)]

    def decode(self, outcome: Any) -> Artifact:
        return Artifact.model_validate(outcome)

    def placeholder(self, key: str) -> Artifact:
        return Artifact(
            urn=f"urn:ivcap-flows:planned:{key}",
            platform=self.call.platform,
            name=self.subject,
            sha256=self.source.sha256,
        )


def _request(source: UploadSource, media_type: str, policy: str | None, collection: str | None) -> dict[str, Any]:
    return {
        "sha256": source.sha256,
        "size": source.size,
        "media-type": media_type,
        "policy": policy,
        "collection": collection,
    }


async def uploaded(call: IvcapCall, source: UploadSource, media_type: str) -> AsyncIterator[str]:
    """Yield the URNs of this content: from the journal, newest first, then from the idempotency record on IVCAP."""
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
        stated = foremost(await call.records.read(key))
        if stated is not None and isinstance(stated.get("urn"), str):
            yield stated["urn"]


def _turn(client: IvcapClient, at_once: int) -> asyncio.Semaphore:
    """Return the semaphore that limits uploads at once. The others wait before they send any request."""
    return _turns.setdefault(client, {}).setdefault(at_once, asyncio.Semaphore(at_once))


async def _all(*steps: Awaitable[object]) -> None:
    """Run the steps concurrently, each to its end. Then raise the error of the first one in order that failed."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _send_new(call: IvcapCall, record: ArtifactRecord, source: UploadSource) -> None:
    """Send the content of a record that was just created and that the platform may not show yet."""
    try:
        await _send_rest(call, record, source, offset=0)
    except NotFoundError:
        await _send_rest(call, await _shown(call, record.urn, call.client.visibility_delay), source)


async def _send_rest(call: IvcapCall, record: ArtifactRecord, source: UploadSource, offset: int | None = None) -> None:
    """Send the content from `offset` on; by default, from the end of what the platform has."""
    artifacts = call.client.artifacts
    await artifacts.send(record, source.path, offset=offset, state=source.state, sha256=source.sha256)


async def read_whole(call: IvcapCall, urn: str) -> ArtifactRecord:
    """Read the record of an artifact that was complete. Raises NotFoundError if it is not there, or not any more."""
    record = await call.client.artifacts.read(urn)
    if record.complete:
        return record
    raise NotFoundError(f"{urn} is not complete on {call.platform}: its status is {record.status}.", path=urn)


async def _read(call: IvcapCall, urn: str) -> ArtifactRecord:
    return await call.client.artifacts.read(urn)


async def _shown(
    call: IvcapCall, urn: str, timeout: float, read: Callable[[IvcapCall, str], Awaitable[ArtifactRecord]] = _read
) -> ArtifactRecord:
    """Read a record, waiting until the platform shows it. Raises NotFoundError after `timeout` seconds."""
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

    again = AsyncRetrying(
        retry=retry_if_exception_type(NotFoundError),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
        stop=stop_after_delay(timeout),
        reraise=True,
    )
    return await again(read, call, urn)


async def _begun(call: IvcapCall, stored: Any, size: int, *, timeout: float) -> ArtifactRecord | None:
    """Return the record that an earlier try created; None if it is gone or cannot be continued."""
    urn = stored.get("urn") if isinstance(stored, dict) else None
    if not isinstance(urn, str):
        return None
    try:
        record = await _shown(call, urn, timeout)
    except NotFoundError:
        return None
    return None if record.status == "error" or record.known_size not in (None, size) else record


async def _until_ready(call: IvcapCall, urn: str, size: int) -> ArtifactRecord:
    loop, seconds = asyncio.get_running_loop(), _READY_WAIT + size / _READY_RATE
    end, pauses = loop.time() + seconds, Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        record = await _shown(call, urn, call.client.visibility_delay)
        if record.complete:
            return record
        if record.status == "error" or loop.time() > end:
            raise IntegrityError(
                f"All bytes of {urn} were sent, but its status is {record.status!r} after {seconds:.0f} s. "
                "Run the task again: it continues from what the platform has.",
                urn=urn,
                expected="ready",
                found=record.status,
            )
        await pauses.sleep()


async def _state_content(call: IvcapCall, urn: str, source: UploadSource, key: str) -> None:
    """State the digest on the platform, and the key, by which a duplicate of the upload is recognised.

    If a policy forbids this, other machines cannot verify the content; nothing else is lost.
    """
    content = {
        "$schema": CONTENT_SCHEMA,
        "$entity": urn,
        "version": RECORD_VERSION,
        "sha256": source.sha256,
        "size": source.size,
        "key": key,
    }
    try:
        await call.client.aspects.add(urn, CONTENT_SCHEMA, content)
    except ForbiddenError:
        return


async def content_of(call: IvcapCall, urn: str) -> str | None:
    """Return the sha256 that an aspect on the artifact states, or None."""
    try:
        async for record in call.client.aspects.list(entity=urn, schema=CONTENT_SCHEMA, order_direction="ASC", limit=1):
            said = record.content.get("sha256") if isinstance(record.content, dict) else None
            return said if isinstance(said, str) else None
    except PlatformError as error:
        if error.retryable:
            raise
    return None
