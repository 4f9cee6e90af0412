"""Tasks for IVCAP aspects: attach once, update without overwriting changes of others, list, get by URN, retract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture import mark_existing
from ivcap_flows.durable import Effect, Found, MatchedBy, Performed, Resume, look_since
from ivcap_flows.errors import InputError, NotFoundError, SupersededError
from ivcap_flows.handles import Aspect, Handle
from ivcap_flows.identity import OncePer, fingerprint
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.schemas import schema_of
from ivcap_flows.journal import IntentRow
from ivcap_flows.journal.states import OPEN
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import called, task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = [
    "aattach_aspect",
    "aget_aspect",
    "alist_aspects",
    "aretract_aspect",
    "asearch",
    "attach_aspect",
    "aupdate_aspect",
    "get_aspect",
    "list_aspects",
    "retract_aspect",
    "search",
    "update_aspect",
]

_UPDATE = "aspect update"


async def _attach_aspect(
    entity: Handle | str,
    content: BaseModel | Mapping[str, Any],
    *,
    schema: str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Aspect:
    """Attach an aspect to an entity, once per run unless `once_per` says otherwise. The entity's other aspects stay.

    `content` is a mapping or a pydantic model (by alias); handles in it become their URNs. `schema` is required if the
    content has no `$schema` and the model does not declare one. `policy` is a URN; without it, the platform's default
    applies. Raises InputError if the schema is missing, if the content's `$schema` and `schema` differ, and for a value
    that has no JSON form.
    """
    call = await IvcapCall.of(credentials)
    call.check(entity)
    about, (schema_urn, document) = urn_of(entity), _content(content, schema)
    done = await call.perform(
        AspectEffect(
            call=call,
            request={"entity": about, "schema": schema_urn, "content": document, "policy": policy},
            visibility_delay=call.client.visibility_delay,
            once_per=once_per,
            discriminator=discriminator,
        )
    )
    # A handle from the journal has its secrets redacted, so return the content as given.
    return done.value.model_copy(update={"content": document})


async def _update_aspect(
    entity: Handle | str,
    content: BaseModel | Mapping[str, Any],
    *,
    schema: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Aspect:
    """Replace the entity's active aspect of the same schema, or add one if there is none.

    Idempotent: if an equal aspect is active, it is the result and nothing is sent. The call replaces only the aspect
    that it read first. Raises SupersededError if someone else changed that aspect in the meantime, and NotUniqueError
    if several aspects of the schema are active.
    """
    call = await IvcapCall.of(credentials)
    call.check(entity)
    about, (schema_urn, document) = urn_of(entity), _content(content, schema)
    pair = {"entity": about, "schema": schema_urn, "content": document, "policy": policy}
    for row in await _unsettled(call, pair):
        # An earlier attempt sent the same update and its reply was lost. Complete it with the URNs that it read then.
        earlier = _replacing(call, pair, row.request["replaces"], row.discriminator, look_first=True)
        try:
            settled = await call.perform(earlier)
        except SupersededError:
            if row.state != "claimed":
                raise
            continue  # It was never sent, so the change superseded nothing of ours.
        if settled.how != "kept":
            await _retract_replaced(call, settled, earlier)
            return settled.value

    before = await _active(call, about, schema_urn)
    if len(before) == 1 and fingerprint(before[0].content) == fingerprint(document):
        mark_existing(before[0].urn)
        return before[0].handle(call.platform)

    replaces = [record.urn for record in before]
    effect = _replacing(call, pair, replaces, None)
    done = await call.perform(effect)
    while done.how == "kept" and await _has_ended(call, done.value.urn):
        # The journal's outcome is an equal update of this run whose aspect was retracted or replaced since: send anew.
        effect = _replacing(call, pair, replaces, done.value.urn)
        done = await call.perform(effect)
    await _retract_replaced(call, done, effect)
    return done.value.model_copy(update={"content": document})


async def _has_ended(call: IvcapCall, urn: str) -> bool:
    """Return whether an aspect of ours was retracted or replaced. One that is not found does not show yet."""
    try:
        return not (await call.client.aspects.read(urn)).active
    except NotFoundError:
        return False


async def _retract_replaced(call: IvcapCall, done: Performed[Aspect], effect: Effect[Aspect]) -> None:
    """Retract what an adopted update replaces, if its call was cut off between adding and retracting."""
    if done.how == "adopted":
        for record in await _active(call, effect.request["entity"], effect.request["schema"]):
            if record.urn in effect.request["replaces"]:
                await call.client.aspects.retract(record.urn)


async def _unsettled(call: IvcapCall, pair: dict[str, Any]) -> list[IntentRow]:
    """Return the intents for equal updates of this run of which it is unknown whether they took effect."""
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
    """Return the effect that replaces the aspects `replaces`.

    `after` is the URN that an equal, earlier update of this run made; it gives this update a different key.
    """
    return UpdateEffect(
        call=call,
        request={**pair, "replaces": replaces},
        visibility_delay=call.client.visibility_delay,
        discriminator=after,
        look_first=look_first,
    )


@dataclass(frozen=True, kw_only=True)
class AspectEffect(Effect[Aspect]):
    """Adding an aspect to an entity. An aspect has no key, so it is found again by its content."""

    noun: str = "aspect"
    call: IvcapCall

    async def send(self, intent: IntentRow, progress: Resume) -> Aspect:
        urn = await self.call.client.aspects.add(self._about, self._schema, self._content, self.request["policy"])
        return self._handle(urn)

    async def find(self, intent: IntentRow) -> list[Found[Aspect]]:
        # An equal aspect that is older than the intent is not ours. If the time limit is unknown, the user decides.
        since = look_since(self.call.client.time, intent)
        matched_by: MatchedBy = "guess" if since is None else "content"
        return [
            Found(record.handle(self.call.platform), record.urn, record.valid_from, matched_by)
            for record in await self._own_equal()
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
        """Return the entity's active aspects with this schema and content."""
        wanted = fingerprint(self._content)
        active = await _active(self.call, self._about, self._schema)
        return [record for record in active if fingerprint(record.content) == wanted]

    async def _own_equal(self) -> list[AspectRecord]:
        return await self.call.client.aspects.of_account(self.call.account, await self._equal())

    def _handle(self, urn: str) -> Aspect:
        return _handle(self.call, urn, self._about, self._schema, self._content)


@dataclass(frozen=True, kw_only=True)
class UpdateEffect(AspectEffect):
    """Replacing the aspects that were read before, the request's `replaces`."""

    noun: str = _UPDATE

    async def send(self, intent: IntentRow, progress: Resume) -> Aspect:
        now = await _active(self.call, self._about, self._schema)
        if [record.urn for record in now] != self.request["replaces"]:
            raise SupersededError(
                f"Someone else changed the aspect {self._schema} of {self._about} after it was read. Read it again and "
                "decide which content to keep.",
                ours=self._content,
                theirs=[record.content for record in now],
            )
        urn = await self.call.client.aspects.update(self._about, self._schema, self._content, self.request["policy"])
        return self._handle(urn)

    async def find(self, intent: IntentRow) -> list[Found[Aspect]]:
        return [
            Found(record.handle(self.call.platform), record.urn, record.valid_from, matched_by="content")
            for record in await self._own_equal()
            if record.urn not in self.request["replaces"]
        ]


async def _get_aspect(urn: str, *, credentials: IvcapCredentialsLike = None) -> Aspect:
    """Return the handle of an existing aspect with its content. A retracted aspect can still be read.

    Raises NotFoundError if the account cannot see it.
    """
    call = await IvcapCall.of(credentials)
    record = await call.client.aspects.read(urn_of(urn))
    mark_existing(record.urn)
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
    """List the aspects that are active now, or were active at `at_time`, newest first; at most `limit`.

    `schema` is a URN, in which `%` matches any text, or a model that declares one. `content_path` is a PostgreSQL
    JSONPath that must match something in the content, such as `$.size ? (@ > 10)`. `filter` is an expression in the
    platform's grammar. `order_by` is one column or several (`entity`, `schema`, `policy`, `account`, `valid_from`, ...)
    and `order_direction` is "ASC" or "DESC", one for all columns or one for each. Without `include_content`, the
    content is None.
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
        mark_existing(aspect.urn)
    return aspects


async def _retract_aspect(aspect: Aspect | str, *, credentials: IvcapCredentialsLike = None) -> None:
    """Retract an aspect: it is no longer active but can still be read by its URN.

    Idempotent: an aspect that was already retracted or replaced stays as it is. Raises NotFoundError if the account
    cannot see it.
    """
    call = await IvcapCall.of(credentials)
    call.check(aspect)
    urn = urn_of(aspect)
    if not only_planned("aspect retraction", urn) and (await call.client.aspects.read(urn)).active:
        await call.client.aspects.retract(urn)


def _content(content: BaseModel | Mapping[str, Any], schema: str | None) -> tuple[str, dict[str, Any]]:
    document = canonical_form(content, "content")
    if not isinstance(document, dict):
        raise InputError(f"An aspect's content must be a mapping or a pydantic model, not {type(content).__name__}.")
    declared = document.get("$schema")
    if schema is None:
        schema = schema_of(content)
    elif declared is not None and declared != schema:
        raise InputError(f"The content's $schema is {declared!r}, but schema={schema!r} was passed. Pass only one.")
    return schema, {"$schema": schema, **document} if declared is None else document


async def _active(call: IvcapCall, entity: str, schema: str) -> list[AspectRecord]:
    return [record async for record in call.client.aspects.list(entity=entity, schema=schema)]


def _handle(call: IvcapCall, urn: str, entity: str, schema: str, content: dict[str, Any]) -> Aspect:
    return Aspect(urn=urn, platform=call.platform, entity=entity, schema_urn=schema, content=content)


def _run_of(words: str) -> Callable[[dict[str, Any]], str]:
    """Return what names a task run: by the last part of the schema, since an entity has many aspects."""

    def name(given: dict[str, Any]) -> str:
        try:
            schema, _ = _content(given["content"], given["schema"])
        except InputError:
            # The body says what is wrong with the content.
            schema = "aspect"
        return words.format(schema.rpartition(":")[2] or "aspect", called(given["entity"]))

    return name


attach_aspect, aattach_aspect = task_pair(_attach_aspect, _run_of("attach {} to {}"), writes=("entity",))
update_aspect, aupdate_aspect = task_pair(_update_aspect, _run_of("update {} of {}"), writes=("entity",))
get_aspect, aget_aspect = task_pair(_get_aspect, "get {urn}")
list_aspects, alist_aspects = task_pair(_list_aspects, "list aspects of {entity}", writes=("entity",))
retract_aspect, aretract_aspect = task_pair(_retract_aspect, "retract {aspect}")


async def _search(
    query: str,
    *,
    at_time: datetime | None = None,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Any]:
    """Run a Mangle program (a Datalog dialect) and return what it derives for its predicate `query`.

    Returns at most `limit` items. The program names the aspects that it reads; they are read as they were at `at_time`:

        :load_aspect(/reading, "urn:example:schema:reading.1", ["entity", ".station"]).
        query(Artifact) :- reading(Artifact, "Callao").

    The items are returned as the platform sends them. Raises BadRequestError or InvalidParameterError if the program
    has an error.
    """
    call = await IvcapCall.of(credentials)
    return [item async for item in call.client.search(query, at_time=at_time, limit=limit)]


search, asearch = task_pair(_search)
