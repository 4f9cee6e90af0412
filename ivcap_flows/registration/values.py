"""Values that a workflow takes from the work: its parameters, its annotations, and recorded facts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import ANNOTATION, Record
from ivcap_flows.secrets import HIDDEN

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, RunRow

__all__ = ["Stated", "Text", "ValueFrom", "WorkRecord", "text_or_more"]

Text = Annotated[str, Field(min_length=1)]
_KINDS: Final = ("parameter", "annotation", "record")
_PARTS: Final = frozenset({"attempt", "task-run", "call"})
"""Types that `of` may name: a flow or subflow, a task, a recorded function."""


class ValueFrom(BaseModel):
    """Where a value comes from: a `parameter`, an `annotation` that `annotate()` made, or a fact of the `record`.

    `of` names the flow, subflow, task or recorded function of the run that has the value. Without `of`, the value is
    that of the registered order, job or flow.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameter: Text | None = None
    annotation: Text | None = None
    record: Text | None = None
    of: Text | None = None

    @model_validator(mode="after")
    def _names_one_thing(self) -> ValueFrom:
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError("give one of parameter, annotation and record")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def name(self) -> str:
        return str(getattr(self, self.kind))


def text_or_more(value: Any) -> Literal["text", "more"]:
    """Return which alternative a value is meant as, so that only the faults of that one are named."""
    return "more" if isinstance(value, Mapping | BaseModel) else "text"


Stated = Annotated[
    Annotated[Text, Tag("text")] | Annotated[ValueFrom, Tag("more")],
    Discriminator(text_or_more),
]
"""A text, or where it comes from."""


@dataclass(frozen=True)
class WorkRecord:
    """The recorded facts about an order, a job or a flow run.

    `own` has its own records in order of precedence, then those of its plan: its code or its service. `graph` is the
    graph of the whole run.
    """

    title: str
    urn: str
    own: Sequence[Record]
    graph: Graph

    @classmethod
    def of_work(cls, work: Order | Job, graph: Graph) -> WorkRecord:
        title = f"the {work.kind} {work.urn} of {work.service_name or work.service}"
        return cls(title, work.urn, _with_plans([work.urn], graph), graph)

    @classmethod
    def of_run(cls, run: RunRow, attempts: Sequence[AttemptRow], graph: Graph) -> WorkRecord:
        urn = flows_urn("run", run.id)
        newest = sorted((each for each in attempts if each.leads), key=lambda each: each.number, reverse=True)
        ids = [*(flows_urn("attempt", each.id) for each in newest), urn]
        return cls(f"the run {urn} of the flow {run.flow_name}", urn, _with_plans(ids, graph), graph)

    def values(self, source: ValueFrom) -> list[Any]:
        """Return the recorded values, each once, in recorded order. Raises InputError if there is none."""
        values = list(_once(self._found(source)))
        if not values:
            of = f" of {source.of!r}" if source.of else ""
            names = sorted({name for place in self._places(source) for name in place})
            known = f" It has {', '.join(names)}." if names else ""
            raise InputError(
                f"The workflow takes the {source.kind} {source.name!r}{of} from {self.title}, whose record has no such "
                f"{source.kind}.{known} Correct the workflow, or state the value in the flow.",
                urn=self.urn,
            )
        if any(HIDDEN in json.dumps(value, default=str) for value in values):
            raise InputError(
                f"The workflow takes the {source.kind} {source.name!r} from {self.title}, which is hidden as a secret. "
                "Remove it from the workflow.",
                urn=self.urn,
            )
        return values

    def text(self, stated: str | ValueFrom) -> str:
        """Return the given text, or the one recorded value, as JSON unless it is a text.

        Raises InputError if there is no value or several different ones.
        """
        if isinstance(stated, str):
            return stated
        values = self.values(stated)
        if len(values) > 1:
            raise InputError(
                f"The workflow takes the {stated.kind} {stated.name!r} of {stated.of!r} from {self.title}, which has "
                f"{len(values)} different ones on record ({_shown(values)}), but one is needed. Take the value from "
                "another place, or state it in the flow with annotate().",
                urn=self.urn,
            )
        return _shown(values)

    def text_if(self, stated: str | ValueFrom | None) -> str | None:
        """Like `text`, but returns None for None."""
        return None if stated is None else self.text(stated)

    def _found(self, source: ValueFrom) -> Iterator[Any]:
        for place in self._places(source):
            if place.get(source.name) is not None:
                yield place[source.name]
                if source.of is None:
                    return

    def _places(self, source: ValueFrom) -> list[Mapping[str, Any]]:
        """Return the mappings of names to values in which a value is looked up."""
        records = self.own if source.of is None else self._parts(source.of)
        if source.kind == "parameter":
            return [_parameters(record, self.graph) for record in records]
        if source.kind == "annotation":
            return [_annotations(record) for record in records]
        return [{name: value for name, value in each.attributes.items() if "." not in name} for each in records]

    def _parts(self, name: str) -> list[Record]:
        parts = [
            node for node in self.graph.nodes.values() if node.type in _PARTS and node.attributes.get("name") == name
        ]
        if not parts:
            raise InputError(
                f"The workflow names {name!r}, but no flow, task or recorded function of that name is on record with "
                f"{self.title}. Correct the workflow.",
                urn=self.urn,
            )
        return parts


def _with_plans(ids: Sequence[str], graph: Graph) -> list[Record]:
    plans = [link.target or "" for id_ in ids for link in graph.links_from(id_, "hadPlan")]
    return [graph.nodes[id_] for id_ in dict.fromkeys([*ids, *plans]) if id_ in graph.nodes]


def _parameters(record: Record, graph: Graph) -> Mapping[str, Any]:
    """Return a record's parameters. Those of a flow are in an entity that it used; others have their own."""
    if record.type == "attempt" and not record.attributes.get("subflow"):
        used = graph.targets(record.id, "used")
        given: Any = next((node.attributes.get("values") for node in used if node.type == "parameters"), None)
    else:
        given = record.attributes.get("parameters") or record.attributes.get("request")
    return given if isinstance(given, Mapping) else {}


def _annotations(record: Record) -> Mapping[str, Any]:
    start = len(ANNOTATION)
    return {name[start:]: value for name, value in record.attributes.items() if name.startswith(ANNOTATION)}


def _once(values: Iterator[Any]) -> Iterator[Any]:
    seen: set[str] = set()
    for value in values:
        text = json.dumps(value, sort_keys=True)
        if text not in seen:
            seen.add(text)
            yield value


def _shown(values: Sequence[Any]) -> str:
    return ", ".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)
