"""What is known about a run, as W3C PROV statements: activities, entities, agents and the relations between them.

Two records of one id are two views of one thing and merge; ids are the platforms' own wherever they have one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ANNOTATION",
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
"""How the attributes begin that a user has added; they overwrite no fact of the record's own."""

NOT_LOOKED_AT: Final = "not looked at"
"""What `files` says of a task run that was followed without regard to what it read and wrote."""


class Record(BaseModel):
    """One statement. `type` is a word of `rules.TYPES` or, for a relation, a name of `rules.RULES`.

    `time` is an activity's start, an entity's or a relation's instant; `ended` an activity's end. A relation reads
    `source type target` as in PROV: `used` goes from an activity to an entity. `attributes` hold JSON values.
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
    """The sha256 by which a thing meets what has the same content: of its bytes, or of a folder's manifest."""
    return thing.attributes.get("sha256") or thing.attributes.get("manifest_sha256")


def relation_id(type: str, source: str, target: str) -> str:  # noqa: A002 - the field's name
    """A relation's id follows from its ends, so that saying it twice says it once."""
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
    """An activity; attributes that are None are left out."""
    return Record(kind="activity", id=id, type=type, time=time, ended=ended, attributes=_kept(attributes))


def entity(id: str, type: str, time: datetime | None = None, **attributes: Any) -> Record:  # noqa: A002
    """An entity; attributes that are None are left out."""
    return Record(kind="entity", id=id, type=type, time=time, attributes=_kept(attributes))


def agent(id: str, type: str, **attributes: Any) -> Record:  # noqa: A002
    """An agent; attributes that are None are left out."""
    return Record(kind="agent", id=id, type=type, attributes=_kept(attributes))


def relation(type: str, source: str, target: str, time: datetime | None = None, **attributes: Any) -> Record:  # noqa: A002
    """A relation between two ids; attributes that are None are left out."""
    return Record(
        kind="relation",
        id=relation_id(type, source, target),
        type=type,
        source=source,
        target=target,
        time=time,
        attributes=_kept(attributes),
    )
