"""Tasks for IVCAP queues: create, list, delete, send messages at least once, receive them at most once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture import mark_existing
from ivcap_flows.durable import Effect, Found, Resume, planning
from ivcap_flows.errors import ConflictError
from ivcap_flows.handles import Queue, QueueMessage
from ivcap_flows.identity import OncePer
from ivcap_flows.ivcap.queues import QueueRecord
from ivcap_flows.journal import IntentRow
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned
from ivcap_flows.tasks.waiting import PlannedError

__all__ = [
    "KEY_MEMBER",
    "acreate_queue",
    "adelete_queue",
    "adequeue",
    "aenqueue",
    "alist_queues",
    "create_queue",
    "delete_queue",
    "dequeue",
    "enqueue",
    "list_queues",
]

KEY_MEMBER: Final = "$ivcap-flows-key"
"""The member of a message that contains its key. IVCAP's documents use names with `$` for members that are not content
(`$schema`, `$id`, `$policy`), so a consumer that knows them ignores it."""

_PAUSE: Final = 1.0
"""Seconds until a message whose reply was lost is sent again. A queue never shows its messages, so it need not be
longer."""


async def _create_queue(
    name: str,
    *,
    description: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Queue:
    """Return the queue of this name; create it if it does not exist. Idempotent: a name belongs to one queue.

    A name must not contain white space or any of `. * > / \\`. `description` and `policy` are used only for a new
    queue. Raises ConflictError if another account has taken the name.
    """
    call = await IvcapCall.of(credentials)
    known = await call.client.queues.by_name(name)
    if known is None and only_planned("queue", name):
        return Queue(urn=f"urn:ivcap-flows:planned:queue:{name}", platform=call.platform, name=name)
    if known is not None:
        mark_existing(known.urn)
    record = known or await _made(call, name, description, policy)
    return record.handle(call.platform)


async def _made(call: IvcapCall, name: str, description: str | None, policy: str | None) -> QueueRecord:
    try:
        return await call.client.queues.create(name, description=description, policy=policy)
    except ConflictError:
        # Another process was faster, or an earlier request of ours succeeded and its reply was lost.
        known = await call.client.queues.by_name(name)
        if known is None:
            raise
        return known


async def _list_queues(*, credentials: IvcapCredentialsLike = None) -> list[Queue]:
    """List all queues of the account."""
    call = await IvcapCall.of(credentials)
    queues = [record.handle(call.platform) async for record in call.client.queues.list()]
    for queue in queues:
        mark_existing(queue.urn)
    return queues


async def _enqueue(
    queue: Queue | str,
    content: Any,
    *,
    schema: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> QueueMessage:
    """Send a message to a queue. Equal messages of a run are one, unless their `discriminator`s differ.

    `content` is any JSON value or a pydantic model (by alias); handles in it become their URNs. `schema` defaults to
    the content's `$schema`.

    Delivery is at least once: a queue does not show which messages it received, so after a lost reply the message is
    sent again. A message that is a JSON object contains its key as `$ivcap-flows-key`. The key is the same in each
    delivery, so a consumer can recognise a repeated one; `dequeue` returns it as `key`. Other JSON values are sent
    unchanged and have no key.
    """
    call = await IvcapCall.of(credentials)
    call.check(queue, content)
    urn, document = urn_of(queue), canonical_form(content, "content")
    if schema is None and isinstance(document, dict) and isinstance(document.get("$schema"), str):
        schema = document["$schema"]
    done = await call.perform(
        MessageEffect(
            call=call,
            request={"queue": urn, "content": document, "schema": schema},
            visibility_delay=_PAUSE,
            once_per=once_per,
            discriminator=discriminator,
        )
    )
    return done.value


@dataclass(frozen=True, kw_only=True)
class MessageEffect(Effect[QueueMessage]):
    """Sending a message to a queue, which does not show what it received. A JSON object contains the key."""

    noun: str = "message"
    call: IvcapCall

    async def send(self, intent: IntentRow, progress: Resume) -> QueueMessage:
        content = self.request["content"]
        keyed = {**content, KEY_MEMBER: intent.key} if isinstance(content, dict) else content
        sent = await self.call.client.queues.enqueue(self.request["queue"], keyed, schema=self.request["schema"])
        return self._message(sent, intent.key)

    async def find(self, intent: IntentRow) -> list[Found[QueueMessage]]:
        return []

    def decode(self, outcome: Any) -> QueueMessage:
        return QueueMessage.model_validate(outcome)

    def placeholder(self, key: str) -> QueueMessage:
        return self._message(f"planned:{key}", key)

    def urn(self, value: QueueMessage) -> None:
        return None

    def _message(self, id: str, key: str) -> QueueMessage:  # noqa: A002 - the platform's own word
        content = self.request["content"]
        return QueueMessage(
            id=id,
            content=content,
            schema_urn=self.request["schema"],
            media_type="application/json",
            key=key if isinstance(content, dict) else None,
        )


async def _dequeue(
    queue: Queue | str, *, limit: int = 1, credentials: IvcapCredentialsLike = None
) -> list[QueueMessage]:
    """Take up to `limit` messages out of a queue, oldest first. Returns an empty list if there is none.

    Delivery is at most once: the platform removes the messages that it returns, so a lost reply loses up to `limit`
    messages for ever. Then UnreachableError is raised, and the task does not ask again. Keep `limit` small if each
    message is important.
    """
    call = await IvcapCall.of(credentials)
    call.check(queue)
    if planning() is not None:
        raise PlannedError(f"The plan ends here: the flow would take messages out of {urn_of(queue)}.")
    return [
        _opened(
            QueueMessage(
                id=record.id, content=record.content, schema_urn=record.schema_urn, media_type=record.content_type
            )
        )
        for record in await call.client.queues.dequeue(urn_of(queue), limit=limit)
    ]


def _opened(message: QueueMessage) -> QueueMessage:
    """Return the message with its content as it was enqueued, and the key as a field."""
    if not isinstance(message.content, dict) or not isinstance(message.content.get(KEY_MEMBER), str):
        return message
    content = dict(message.content)
    return message.model_copy(update={"key": content.pop(KEY_MEMBER), "content": content})


async def _delete_queue(queue: Queue | str, *, credentials: IvcapCredentialsLike = None) -> None:
    """Delete a queue and its messages. Idempotent: if the queue does not exist, nothing happens."""
    call = await IvcapCall.of(credentials)
    call.check(queue)
    if not only_planned("queue deletion", urn_of(queue)):
        await call.client.queues.delete(urn_of(queue))


create_queue, acreate_queue = task_pair(_create_queue, "create queue {name}")
list_queues, alist_queues = task_pair(_list_queues)
enqueue, aenqueue = task_pair(_enqueue, "enqueue to {queue}", writes=("queue",))
dequeue, adequeue = task_pair(_dequeue, "dequeue from {queue}")
delete_queue, adelete_queue = task_pair(_delete_queue, "delete {queue}", writes=("queue",))
