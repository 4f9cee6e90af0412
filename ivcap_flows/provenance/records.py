"""The record of a run as W3C PROV statements: activities, entities, agents and relations between them.

Two records with one id are two views of one thing, and are merged. Ids are the platforms' own if they have any.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ANNOTATION",
    "CONCLUDED",
    "IN_MEMORY",
    "LEFT_OUT",
    "NOT_LOOKED_AT",
    "Kind",
    "Record",
    "activity",
    "agent",
    "content_of",
    "entity",
    "relation",
    "relation_id",
]

Kind = Literal["activity", "entity", "agent", "relation"]

ANNOTATION: Final = "annotation."
"""The prefix of attributes that a user has added. They never overwrite the record's own facts."""

CONCLUDED: Final = "concluded_inputs"
"""The name under which exports list the inputs of an activity that it was not seen to read."""

LEFT_OUT: Final = "content_left_out"
"""The attribute of a thing whose content is not in an export that could have it: the reason."""

IN_MEMORY: Final = frozenset({"frame", "array"})
"""The types of tables and arrays in memory whose content is known."""

NOT_LOOKED_AT: Final = "not looked at"
"""The attribute `files` of a task run whose files were not looked at."""


class Record(BaseModel):
    """One statement. `type` is one of `things.THINGS` or, for a relation, a name in `rules.RULES`.

    `time` is the start of an activity, or the instant of an entity or a relation; `ended` is the end of an activity. A
    relation reads `source type target` as in PROV: `used` goes from an activity to an entity. `attributes` hold JSON
    values.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    kind: Kind
    id: str
    type: str
    source: str | None = None
    target: str | None = None
    time: datetime | None = None
    ended: datetime | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)


def content_of(thing: Record) -> Any:
    """Return the sha256 that joins a thing to equal contents: of its bytes, of a folder's manifest, or of data.

    Data in memory that may be equal by chance have none.
    """
    if thing.type in IN_MEMORY:
        return None if thing.attributes.get("by_chance") else thing.attributes.get("content_sha256")
    return thing.attributes.get("sha256") or thing.attributes.get("manifest_sha256")


def relation_id(type: str, source: str, target: str) -> str:  # noqa: A002 - the field's name
    """Return the id of a relation. It is computed from the ends, so that a repeated relation is the same one."""
    return f"{type}({source},{target})"


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def activity(
    id: str,  # noqa: A002
    type: str,  # noqa: A002
    time: datetime | None = None,
    ended: datetime | None = None,
    **attributes: Any,
) -> Record:
    """Return an activity, without the attributes that are None."""
    return Record(kind="activity", id=id, type=type, time=time, ended=ended, attributes=_kept(attributes))


def entity(id: str, type: str, time: datetime | None = None, **attributes: Any) -> Record:  # noqa: A002
    """Return an entity, without the attributes that are None."""
    return Record(kind="entity", id=id, type=type, time=time, attributes=_kept(attributes))


def agent(id: str, type: str, **attributes: Any) -> Record:  # noqa: A002
    """Return an agent, without the attributes that are None."""
    return Record(kind="agent", id=id, type=type, attributes=_kept(attributes))


def relation(type: str, source: str, target: str, time: datetime | None = None, **attributes: Any) -> Record:  # noqa: A002
    """Return a relation between two ids, without the attributes that are None."""
    return Record(
        kind="relation",
        id=relation_id(type, source, target),
        type=type,
        source=source,
        target=target,
        time=time,
        attributes=_kept(attributes),
    )
