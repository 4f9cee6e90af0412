"""Tasks for IVCAP aspects: add once, replace what was read, list, attach by URN, retract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture import found
from ivcap_flows.durable import Effect, Found, MatchedBy, Progress, look_since
from ivcap_flows.errors import InputError, SupersededError
from ivcap_flows.handles import Aspect, Handle
from ivcap_flows.identity import Scope, fingerprint
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.schemas import schema_of
from ivcap_flows.journal import IntentRow
from ivcap_flows.journal.states import OPEN
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = [
    "aadd_aspect",
    "aattach_aspect",
    "add_aspect",
    "alist_aspects",
    "aretract_aspect",
    "attach_aspect",
    "aupdate_aspect",
    "list_aspects",
    "retract_aspect",
    "update_aspect",
]

_UPDATE = "aspect update"


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

    `content` is a mapping or a pydantic model (by alias), in which handles stand for their URNs; `schema` is needed
    where neither the content has `$schema` nor the model declares it. `policy` is a URN; without one the platform's own
    default holds. Raises InputError without a schema, where the two differ, and for what no JSON value stands for.
    """
    call = await IvcapCall.of(credentials)
    call.check(entity)
    about, (schema_urn, document) = urn_of(entity), _content(content, schema)
    done = await call.perform(
        AspectEffect(
            call=call,
            request={"entity": about, "schema": schema_urn, "content": document, "policy": policy},
            visibility_delay=call.client.visibility_delay,
            scope=scope,
            discriminator=discriminator,
        )
    )
    # What the journal keeps of it is without secrets.
    return done.value.model_copy(update={"content": document})


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
    pair = {"entity": about, "schema": schema_urn, "content": document, "policy": policy}
    for row in await _unsettled(call, pair):
        # An earlier attempt asked for the same and did not hear the answer. It is settled by what it read then.
        earlier = _replacing(call, pair, row.request["replaces"], row.discriminator, look_first=True)
        try:
            settled = await call.perform(earlier)
        except SupersededError:
            if row.state != "intent":
                raise
            continue  # It was never sent, so nothing of ours was superseded.
        if settled.how != "kept":
            return settled.value

    before = await _active(call, about, schema_urn)
    if len(before) == 1 and fingerprint(before[0].content) == fingerprint(document):
        found(before[0].urn)
        return before[0].handle(call.platform)

    replaces = [record.urn for record in before]
    done = await call.perform(_replacing(call, pair, replaces, None))
    while done.how == "kept" and done.value.urn not in {r.urn for r in await _active(call, about, schema_urn)}:
        # This run wrote the same once, and it was retracted or replaced since: that was another update than this one.
        done = await call.perform(_replacing(call, pair, replaces, done.value.urn))
    return done.value.model_copy(update={"content": document})


async def _unsettled(call: IvcapCall, pair: dict[str, Any]) -> list[IntentRow]:
    """Equal updates of this run of which it is not known whether they took effect."""
    if call.attempt is None:
        return []
    run_id = call.attempt.run.id
    rows = [
        row
        for state in sorted(OPEN)
        for row in await call.journal.ask(
            call.journal.intents.where, run_id=run_id, noun=_UPDATE, state=state, limit=None
        )
    ]
    wanted = fingerprint(call.journal.redaction.of(pair))
    return [row for row in rows if fingerprint({key: row.request.get(key) for key in pair}) == wanted]


def _replacing(
    call: IvcapCall, pair: dict[str, Any], replaces: list[str], after: str | None, *, look_first: bool = False
) -> Effect[Aspect]:
    """The update of what was read as `replaces`; `after` tells it from an equal one that this run made before."""
    return UpdateEffect(
        call=call,
        request={**pair, "replaces": replaces},
        visibility_delay=call.client.visibility_delay,
        discriminator=after,
        look_first=look_first,
    )


@dataclass(frozen=True, kw_only=True)
class AspectEffect(Effect[Aspect]):
    """An aspect beside those that its entity has. It bears no key: it is found again by its content."""

    noun: str = "aspect"
    call: IvcapCall

    async def send(self, intent: IntentRow, progress: Progress) -> Aspect:
        urn = await self.call.client.aspects.add(self._about, self._schema, self._content, self.request["policy"])
        return self._handle(urn)

    async def find(self, intent: IntentRow) -> list[Found[Aspect]]:
        # An equal statement from before is not ours. Where it is not known since when one could be, the user decides.
        since = look_since(self.call.client.time, intent)
        matched_by: MatchedBy = "guess" if since is None else "content"
        return [
            Found(record.handle(self.call.platform), record.urn, record.valid_from, matched_by)
            for record in await self._equal()
            if since is None or record.valid_from is None or record.valid_from >= since
        ]

    def decode(self, outcome: Any) -> Aspect:
        return Aspect.model_validate(outcome)

    def placeholder(self, key: str) -> Aspect:
        return self._handle(f"urn:ivcap-flows:planned:{key}")

    @property
    def _about(self) -> str:
        return str(self.request["entity"])

    @property
    def _schema(self) -> str:
        return str(self.request["schema"])

    @property
    def _content(self) -> Any:
        return self.request["content"]

    async def _equal(self) -> list[AspectRecord]:
        """The entity's active aspects of this schema and content."""
        wanted = fingerprint(self._content)
        active = await _active(self.call, self._about, self._schema)
        return [record for record in active if fingerprint(record.content) == wanted]

    def _handle(self, urn: str) -> Aspect:
        return _handle(self.call, urn, self._about, self._schema, self._content)


@dataclass(frozen=True, kw_only=True)
class UpdateEffect(AspectEffect):
    """An aspect in the place of those that were read as `replaces`."""

    noun: str = _UPDATE

    async def send(self, intent: IntentRow, progress: Progress) -> Aspect:
        now = await _active(self.call, self._about, self._schema)
        if [record.urn for record in now] != self.request["replaces"]:
            raise SupersededError(
                f"The aspect {self._schema} of {self._about} was changed by another since it was read. Read it again, "
                "and decide which holds.",
                ours=self._content,
                theirs=[record.content for record in now],
            )
        urn = await self.call.client.aspects.update(self._about, self._schema, self._content, self.request["policy"])
        return self._handle(urn)

    async def find(self, intent: IntentRow) -> list[Found[Aspect]]:
        return [
            Found(record.handle(self.call.platform), record.urn, record.valid_from, matched_by="content")
            for record in await self._equal()
            if record.urn not in self.request["replaces"]
        ]


async def _attach_aspect(urn: str, *, credentials: IvcapCredentialsLike = None) -> Aspect:
    """The handle of an aspect that exists, by its URN, with its content; a retracted one stays readable.

    Raises NotFoundError for one that the account cannot see.
    """
    call = await IvcapCall.of(credentials)
    record = await call.client.aspects.read(urn_of(urn))
    found(record.urn)
    return record.handle(call.platform)


async def _list_aspects(
    entity: Handle | str | None = None,
    *,
    schema: str | type[BaseModel] | None = None,
    content_path: str | None = None,
    at_time: datetime | None = None,
    filter: str | None = None,  # noqa: A002 - the API's word
    order_by: str | Sequence[str] = "valid_from",
    order_direction: str | Sequence[str] = "DESC",
    include_content: bool = True,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Aspect]:
    """All aspects that are active now, or were at `at_time`, newest first; at most `limit` of them.

    `schema` is a URN, in which `%` stands for anything, or a model that declares one. `content_path` is a PostgreSQL
    JSONPath that must give something from the content, such as `$.size ? (@ > 10)`; `filter` is the platform's own
    grammar. `order_by` is a column or several (`entity`, `schema`, `policy`, `account`, `valid_from`, ...) and
    `order_direction` "ASC" or "DESC", once for all or once for each. Without `include_content` the content is None.
    """
    call = await IvcapCall.of(credentials)
    call.check(entity)
    records = call.client.aspects.list(
        entity=None if entity is None else urn_of(entity),
        schema=schema_of(schema) if isinstance(schema, type) else schema,
        content_path=content_path,
        at_time=at_time,
        filter=filter,
        order_by=order_by,
        order_direction=order_direction,
        include_content=include_content,
        limit=limit,
    )
    aspects = [record.handle(call.platform) async for record in records]
    for aspect in aspects:
        found(aspect.urn)
    return aspects


async def _retract_aspect(aspect: Aspect | str, *, credentials: IvcapCredentialsLike = None) -> None:
    """Retract an aspect: it is no longer active, and stays readable by its URN.

    Idempotent: one that was retracted or replaced before is left as it is. Raises NotFoundError for one that the
    account cannot see.
    """
    call = await IvcapCall.of(credentials)
    call.check(aspect)
    urn = urn_of(aspect)
    if not only_planned("aspect retraction", urn) and (await call.client.aspects.read(urn)).active:
        await call.client.aspects.retract(urn)


def _content(content: BaseModel | Mapping[str, Any], schema: str | None) -> tuple[str, dict[str, Any]]:
    document = canonical_form(content, "content")
    if not isinstance(document, dict):
        raise InputError(f"An aspect's content is a mapping or a pydantic model, not {type(content).__name__}.")
    declared = document.get("$schema")
    if schema is None:
        schema = schema_of(content)
    elif declared is not None and declared != schema:
        raise InputError(f"The content's $schema is {declared!r} and schema={schema!r} was passed. Leave one of them.")
    return schema, {"$schema": schema, **document} if declared is None else document


async def _active(call: IvcapCall, entity: str, schema: str) -> list[AspectRecord]:
    return [record async for record in call.client.aspects.list(entity=entity, schema=schema)]


def _handle(call: IvcapCall, urn: str, entity: str, schema: str, content: dict[str, Any]) -> Aspect:
    return Aspect(urn=urn, platform=call.platform, entity=entity, schema_urn=schema, content=content)


add_aspect, aadd_aspect = task_pair(_add_aspect, name="Add aspect", run_name="add aspect to {entity}")
update_aspect, aupdate_aspect = task_pair(_update_aspect, name="Update aspect", run_name="update aspect of {entity}")
attach_aspect, aattach_aspect = task_pair(_attach_aspect, name="Attach aspect", run_name="attach {urn}")
list_aspects, alist_aspects = task_pair(_list_aspects, name="List aspects", run_name="list aspects of {entity}")
retract_aspect, aretract_aspect = task_pair(_retract_aspect, name="Retract aspect", run_name="retract {aspect}")
