"""Tasks for IVCAP aspects: add once, replace what was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ivcap_flows.durable import CLOCKS, Effect, Found, Progress
from ivcap_flows.errors import InputError, SupersededError
from ivcap_flows.handles import Aspect, Handle
from ivcap_flows.identity import Scope, fingerprint
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.journal import IntentRow
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair

__all__ = ["aadd_aspect", "add_aspect", "aupdate_aspect", "update_aspect"]


async def _add_aspect(
    entity: Handle | str,
    content: BaseModel | Mapping[str, Any],
    *,
    schema: str | None = None,
    policy: str | None = None,
    scope: Scope = "run",
    discriminator: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Aspect:
    """Add an aspect to an entity, beside those it has, at most once within `scope`.

    `content` is a mapping or a pydantic model (by alias); `schema` is needed where the content has no `$schema`.
    `policy` is a URN; without one the platform's own default holds. Raises InputError without a schema.
    """
    call = await IvcapCall.of(credentials)
    call.check(entity)
    about, (schema_urn, document) = urn_of(entity), _content(content, schema)

    async def send(intent: IntentRow, progress: Progress) -> Aspect:
        return _handle(
            call, await call.client.aspects.add(about, schema_urn, document, policy), about, schema_urn, document
        )

    async def find(intent: IntentRow) -> list[Found[Aspect]]:
        # An equal statement from long before is not ours; clocks may differ.
        since = intent.created_at - CLOCKS
        return [
            Found(record.handle(call.platform), record.urn, record.valid_from, matched_by="content")
            for record in await _active(call, about, schema_urn)
            if fingerprint(record.content) == fingerprint(document)
            and (record.valid_from is None or record.valid_from >= since)
        ]

    done = await call.perform(
        Effect(
            noun="aspect",
            request={"entity": about, "schema": schema_urn, "content": document, "policy": policy},
            send=send,
            find=find,
            decode=Aspect.model_validate,
            placeholder=lambda key: _handle(call, f"urn:ivcap-flows:planned:{key}", about, schema_urn, document),
            settle=call.client.settle,
            scope=scope,
            discriminator=discriminator,
        )
    )
    return done.value


async def _update_aspect(
    entity: Handle | str,
    content: BaseModel | Mapping[str, Any],
    *,
    schema: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Aspect:
    """Put an aspect in the place of the entity's active one of the same schema, or add it where there is none.

    Idempotent: an equal active aspect is the result, and nothing is sent. What this call replaces is what it read
    first; SupersededError if another has replaced it meanwhile. NotUniqueError where several are active.
    """
    call = await IvcapCall.of(credentials)
    call.check(entity)
    about, (schema_urn, document) = urn_of(entity), _content(content, schema)
    before = await _active(call, about, schema_urn)
    if len(before) == 1 and fingerprint(before[0].content) == fingerprint(document):
        return before[0].handle(call.platform)

    replaces = [record.urn for record in before]

    async def send(intent: IntentRow, progress: Progress) -> Aspect:
        now = await _active(call, about, schema_urn)
        if [record.urn for record in now] != replaces:
            raise SupersededError(
                f"The aspect {schema_urn} of {about} was changed by another since it was read. Read it again, and "
                "decide which holds.",
                ours=document,
                theirs=[record.content for record in now],
            )
        urn = await call.client.aspects.update(about, schema_urn, document, policy)
        return _handle(call, urn, about, schema_urn, document)

    async def find(intent: IntentRow) -> list[Found[Aspect]]:
        return [
            Found(record.handle(call.platform), record.urn, record.valid_from, matched_by="content")
            for record in await _active(call, about, schema_urn)
            if record.urn not in replaces and fingerprint(record.content) == fingerprint(document)
        ]

    def update(after: str | None) -> Effect[Aspect]:
        return Effect(
            noun="aspect update",
            request={
                "entity": about,
                "schema": schema_urn,
                "content": document,
                "policy": policy,
                "replaces": replaces,
            },
            send=send,
            find=find,
            decode=Aspect.model_validate,
            placeholder=lambda key: _handle(call, f"urn:ivcap-flows:planned:{key}", about, schema_urn, document),
            settle=call.client.settle,
            discriminator=after,
        )

    done = await call.perform(update(None))
    while done.how == "kept" and done.value.urn not in {r.urn for r in await _active(call, about, schema_urn)}:
        # This run wrote the same once, and it was retracted or replaced since: that was another update than this one.
        done = await call.perform(update(done.value.urn))
    return done.value


def _content(content: BaseModel | Mapping[str, Any], schema: str | None) -> tuple[str, dict[str, Any]]:
    if isinstance(content, BaseModel):
        document = content.model_dump(mode="json", by_alias=True)
    elif isinstance(content, Mapping):
        document = dict(content)
    else:
        raise InputError(f"An aspect's content is a mapping or a pydantic model, not {type(content).__name__}.")
    named = schema or document.get("$schema")
    if not isinstance(named, str) or not named:
        raise InputError("The aspect has no schema. Pass schema='urn:…', or declare `$schema` in the content.")
    return named, {"$schema": named, **document} if "$schema" not in document else document


async def _active(call: IvcapCall, entity: str, schema: str) -> list[AspectRecord]:
    return [record async for record in call.client.aspects.list(entity=entity, schema=schema)]


def _handle(call: IvcapCall, urn: str, entity: str, schema: str, content: dict[str, Any]) -> Aspect:
    return Aspect(urn=urn, platform=call.platform, entity=entity, schema_urn=schema, content=content)


add_aspect, aadd_aspect = task_pair(_add_aspect, name="Add aspect", run_name="add aspect to {entity}")
update_aspect, aupdate_aspect = task_pair(_update_aspect, name="Update aspect", run_name="update aspect of {entity}")
