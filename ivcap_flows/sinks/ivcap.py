"""The record of a run as aspects on IVCAP: the whole on the run's URN, and a small link on each artifact it touched.

If several machines with separate journals continued one run, each journal has a part of the run, and keeps its own
aspects for it. Each part has both aspects once: the sink first reads what IVCAP shows, and waits for what a killed
drainer may have sent before it sends that again. A platform may show late what it has accepted, so readers still take
the newest aspect of each part, as `parts_by_run` does.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import ForbiddenError
from ivcap_flows.identity import RECORD_VERSION, canonical, digest, flows_urn
from ivcap_flows.loop import all_of
from ivcap_flows.provenance import prov_json
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.sinks.base import TRIAL, Delivery, is_trial, shareable

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime
    from ivcap_flows.ivcap.aspects import AspectRecord, Aspects
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import Journal, RunRow
    from ivcap_flows.journal.rows import SendingRow

__all__ = ["LINK_SCHEMA", "RUN_SCHEMA", "SCHEMAS", "IvcapSink", "parts_by_run"]

RUN_SCHEMA: Final = "urn:ivcap-flows:schema:run.1"
LINK_SCHEMA: Final = "urn:ivcap-flows:schema:run-link.1"

_URN: Final = {"type": "string", "pattern": "^urn:"}
_SHA256: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_JOURNAL: Final = {
    "type": "string",
    "minLength": 1,
    "description": "The id of the journal that wrote this; readers keep the newest of each run and journal.",
}
_VERSION: Final = {
    "type": "integer",
    "minimum": 1,
    "description": "The version of this content; without it, 1. A later one may have more fields.",
}
SCHEMAS: Final[Mapping[str, Any]] = {
    RUN_SCHEMA: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": RUN_SCHEMA,
        "title": "The record of a run, an aspect of the run's URN",
        "type": "object",
        "required": ["$schema", "run", "journal", "flow", "outcome", "missing-facts", "prov", "sha256"],
        "properties": {
            "$schema": {"const": RUN_SCHEMA},
            "version": _VERSION,
            "run": {**_URN, "description": "The URN of the run; the records of all its journals together describe it."},
            "journal": _JOURNAL,
            "flow": {"type": "string", "description": "The name of the flow."},
            "outcome": {
                "enum": ["completed", "failed", "cancelled", "crashed", "parked", "paused", "lost", "abandoned"],
                "description": "The outcome of the run, as far as the journal knows. Parked or paused, it continues.",
            },
            "missing-facts": {
                "type": "integer",
                "minimum": 0,
                "description": "Number of facts that could not be recorded; if not 0, the record is incomplete.",
            },
            "prov": {"type": "object", "description": "Everything that the journal has about the run, as PROV-JSON."},
            "sha256": {**_SHA256, "description": "The sha256 of the canonical JSON (RFC 8785) of all other fields."},
        },
    },
    LINK_SCHEMA: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": LINK_SCHEMA,
        "title": "A link to a run that used or made an artifact, an aspect of the artifact",
        "type": "object",
        "required": ["$schema", "run", "journal", "flow", "roles"],
        "properties": {
            "$schema": {"const": LINK_SCHEMA},
            "version": _VERSION,
            "run": {**_URN, "description": "The URN of the run; the run's record is an aspect of this URN."},
            "journal": _JOURNAL,
            "flow": {"type": "string", "description": "The name of the flow."},
            "roles": {
                "type": "array",
                "items": {"enum": ["generated", "used"]},
                "minItems": 1,
                "uniqueItems": True,
                "description": "What the run did with the artifact.",
            },
        },
    },
}
"""The JSON schemas of the contents, by their URNs."""

_ARTIFACT: Final = "urn:ivcap:artifact:"
AT_ONCE: Final = 8
NOTE_SECONDS: Final = 1.0
"""Seconds after which the note of what is being sent is renewed, so that the note covers the last request."""
_SHORT: Final = 5.0
"""The maximum number of seconds that a delivery itself waits for what may still appear."""


def _seconds_since(sent: SendingRow, now: datetime, time: ServerTime | None) -> float:
    """Return the seconds since then, as far as the journal's clock and the platform's agree on them."""
    if time is None or sent.sent_platform_time is None:
        return 0.0
    here, there = now - sent.sent_at, time.earliest - sent.sent_platform_time
    return max(0.0, min(here, there).total_seconds())


class IvcapSink:
    """Asserts records with one account's client.

    They have the platform's default policy for aspects, under which only the account can read them.
    """

    def __init__(self, client: IvcapClient, journal: Journal, name: str = "ivcap") -> None:
        self._client = client
        self._journal = journal
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Read what is there first. Leave an equal record; retract an older one once the new one is in place."""
        platform = await self._client.platform()
        if await is_trial(graph, self._client.platform):
            return Delivery("delivered", TRIAL)
        wanted = [_Wanted(flows_urn("run", run.id), RUN_SCHEMA, _record(run, graph))]
        wanted += [_Wanted(urn, LINK_SCHEMA, link) for urn, link in _links(run, graph, platform)]
        await self._read(run, wanted)
        if any(each.is_missing for each in wanted):
            sent = await self._journal.ask(self._journal.deliveries.sending, self._name, run.id)
            if sent is not None:
                pending = await self._wait_until_visible(sent)
                if pending is not None:
                    return pending
                await self._read(run, wanted)
        delivery = await self._write(run, wanted)
        await self._journal.ask(self._journal.deliveries.end_sending, self._name, run.id)
        return delivery

    async def _wait_until_visible(self, sent: SendingRow) -> Delivery | None:
        """Wait for what an earlier delivery sent whose process was killed, or whose reply was lost.

        Return a pending delivery if that takes long.
        """
        now, time = await self._journal.ask(self._journal.now), self._client.time
        remaining = max(0.0, NOTE_SECONDS + self._client.visibility_delay - _seconds_since(sent, now, time))
        # Without the platform's time, the next pass would know no better than this one how much time has passed.
        if remaining > _SHORT and time is not None and sent.sent_platform_time is not None:
            reason = (
                f"Records sent at {sent.sent_at:%H:%M:%S} UTC may still appear on IVCAP; the next try looks for them."
            )
            return Delivery("pending", reason, next_try=now + timedelta(seconds=remaining))
        await asyncio.sleep(remaining)
        return None

    async def _read(self, run: RunRow, wanted: Sequence[_Wanted]) -> None:
        """Read what IVCAP has for each of the wanted aspects."""
        urn = flows_urn("run", run.id)
        # An artifact may have links to thousands of other runs.
        path = f"$.run ? (@ == {json.dumps(urn)})"

        async def read(each: _Wanted) -> None:
            listed = self._client.aspects.where(path, entity=each.entity, schema=each.schema)
            each.existing = [record async for record in listed if _part_of(record) == (urn, run.journal)]
            each.content = _with_unknown(each.content, each.existing)

        await all_of(read, wanted, AT_ONCE)

    async def _write(self, run: RunRow, wanted: Sequence[_Wanted]) -> Delivery:
        aspects = self._client.aspects
        refused: list[str] = []

        async def write(each: _Wanted) -> None:
            if each.is_missing:
                try:
                    await aspects.add(each.entity, each.schema, each.content)
                except ForbiddenError as error:
                    if each.schema == RUN_SCHEMA:
                        raise
                    refused.append(f"{each.entity} could not be linked to the run: {error.message}")
                    return
            for record in each.superseded:
                await aspects.retract(record.urn)

        async with self._noted(run) if any(each.is_missing for each in wanted) else nullcontext():
            await all_of(write, wanted, AT_ONCE)
        return Delivery("dead", " ".join(sorted(refused))) if refused else Delivery("delivered")

    @asynccontextmanager
    async def _noted(self, run: RunRow) -> AsyncIterator[None]:
        """Keep in the journal when the last requests were sent. The caller deletes the note when all were answered."""
        ended = asyncio.Event()

        async def note() -> None:
            await self._journal.ask(self._journal.deliveries.note_sending, self._name, run.id, self._client.time)

        async def renew() -> None:
            while not ended.is_set():
                try:
                    await asyncio.wait_for(ended.wait(), NOTE_SECONDS)
                except asyncio.TimeoutError:
                    await note()

        await note()
        renewing = asyncio.create_task(renew())
        try:
            yield
        except BaseException:
            ended.set()
            await renewing
            await note()
            raise
        ended.set()
        await renewing


@dataclass
class _Wanted:
    """A wanted aspect, and the aspects that IVCAP has for the same part."""

    entity: str
    schema: str
    content: dict[str, Any]
    existing: list[AspectRecord] = field(default_factory=list)

    @property
    def is_missing(self) -> bool:
        return not self._equal

    @property
    def superseded(self) -> list[AspectRecord]:
        """The aspects that are older, and of equal ones all but the first."""
        kept = self._equal[-1:]
        return [record for record in self.existing if record not in kept]

    @property
    def _equal(self) -> list[AspectRecord]:
        return [record for record in self.existing if _compared(record.content) == _compared(self.content)]


async def parts_by_run(aspects: Aspects, entity: str, schema: str) -> dict[str, dict[str, AspectRecord]]:
    """Return the aspects of one entity and schema, `RUN_SCHEMA` or `LINK_SCHEMA`, by run and then by journal.

    Only the newest aspect of each part is returned, since there may be more for a moment.
    """
    found: dict[str, dict[str, AspectRecord]] = defaultdict(dict)
    async for record in aspects.list(entity=entity, schema=schema):
        part = _part_of(record)
        if part is not None:
            found[part[0]].setdefault(part[1], record)
    return dict(found)


def _record(run: RunRow, graph: Graph) -> dict[str, Any]:
    record = {
        "$schema": RUN_SCHEMA,
        "version": RECORD_VERSION,
        "run": flows_urn("run", run.id),
        "journal": run.journal,
        "flow": run.flow_name,
        "outcome": run.outcome,
        "missing-facts": run.missing_facts,
        "prov": json.loads(prov_json.dumps(shareable(graph), indent=None)),
    }
    return _with_digest(record)


def _with_digest(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "sha256": digest(canonical(record))}


def _with_unknown(content: dict[str, Any], existing: Sequence[AspectRecord]) -> dict[str, Any]:
    """Return a content with the fields that only newer code knows, as the newest aspect of the part has them."""
    schema = content["$schema"]
    there = next((record.content for record in existing if isinstance(record.content, Mapping)), {})
    known = SCHEMAS[schema]["properties"].keys()
    unknown = {name: value for name, value in there.items() if name not in known and not name.startswith("$")}
    if not unknown:
        return content
    merged = {**unknown, **{name: value for name, value in content.items() if name != "sha256"}}
    return _with_digest(merged) if schema == RUN_SCHEMA else merged


def _links(run: RunRow, graph: Graph, platform: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the artifacts on this platform that a run used or made, each with the content of its link."""
    for urn, node in graph.nodes.items():
        roles = [
            *(["generated"] if graph.links_from(urn, "wasGeneratedBy") else []),
            *(["used"] if graph.links_to(urn, "used") else []),
        ]
        if roles and urn.startswith(_ARTIFACT) and node.attributes.get("platform", platform) == platform:
            yield (
                urn,
                {
                    "$schema": LINK_SCHEMA,
                    "version": RECORD_VERSION,
                    "run": flows_urn("run", run.id),
                    "journal": run.journal,
                    "flow": run.flow_name,
                    "roles": roles,
                },
            )


def _compared(content: Any) -> Any:
    """Return what differs if an aspect of a part is another one: the digest of a record, or the whole of a link."""
    if not isinstance(content, Mapping):
        return content
    return content.get("sha256") or {name: content.get(name) for name in ("run", "flow", "roles")}


def _part_of(record: AspectRecord) -> tuple[str, str] | None:
    """Return the run and the journal that an aspect belongs to, or None if it does not name both."""
    content = record.content if isinstance(record.content, Mapping) else {}
    run, journal = content.get("run"), content.get("journal")
    return (run, journal) if isinstance(run, str) and isinstance(journal, str) else None
