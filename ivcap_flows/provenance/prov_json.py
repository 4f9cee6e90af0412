"""PROV-JSON by the `prov` library, which can also read it.

Every id becomes a qualified name in a declared namespace. Its full URI is the id itself, or for a handle of Provena
`https://hdl.handle.net/<handle>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.names import NAMESPACES, split
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.rules import RULES, validate
from ivcap_flows.provenance.things import type_of

if TYPE_CHECKING:
    from prov.identifier import QualifiedName
    from prov.model import ProvDocument

__all__ = ["document", "dumps"]


def document(records: Iterable[Record]) -> ProvDocument:
    """Return the records as a document of the `prov` library. Raises ValueError if they break the rules."""
    from prov.model import ProvDocument

    graph = records if isinstance(records, Graph) else Graph(records)
    validate(graph)
    target = ProvDocument()
    writer = _Writer(target)
    performed = _performed(graph)
    for record in graph:
        if record.kind != "relation" or record.type not in ("hadPlan", "wasAssociatedWith"):
            writer.write(record)
        elif record.type == "hadPlan":
            if record.source not in performed:
                writer.write(record)
        else:
            agent, plans = performed.get(record.source or "", ("", []))
            for plan in plans if agent == record.target else [None]:
                writer.write(record, plan)
    return target


def dumps(records: Iterable[Record], *, indent: int | None = 2) -> str:
    """Return the records as PROV-JSON text (W3C Member Submission of 24 April 2013)."""
    return str(document(records).serialize(format="json", indent=indent))


_PERFORMERS: Final = ("software", "user", "organisation")


def _performed(graph: Graph) -> dict[str, tuple[str, Sequence[Record]]]:
    """Return, by activity, the agent that followed its plans, and these plans: PROV states both in one association.

    A program that acts for a person follows the code. The person responsible for a platform's work follows its plan.
    """
    found: dict[str, tuple[str, Sequence[Record]]] = {}
    for id_ in (link.source or "" for link in graph.links("hadPlan")):
        if agents := graph.targets(id_, "wasAssociatedWith"):
            performer = min(agents, key=lambda agent: _PERFORMERS.index(agent.type))
            found[id_] = performer.id, graph.links_from(id_, "hadPlan")
    return found


class _Writer:
    def __init__(self, target: ProvDocument) -> None:
        self.document = target
        self.names = {prefix: target.add_namespace(prefix, uri) for prefix, uri in NAMESPACES.items()}

    def name(self, id: str) -> QualifiedName:  # noqa: A002
        prefix, rest = split(id)
        return self.names[prefix][rest]

    def write(self, record: Record, plan: Record | None = None) -> None:
        if record.kind == "relation":
            self._relation(record, plan)
            return
        attributes = self._attributes(record)
        name = self.name(record.id)
        if record.kind == "activity":
            self.document.activity(name, record.time, record.ended, attributes)
        elif record.kind == "agent":
            self.document.agent(name, attributes)
        else:
            if record.time is not None:
                attributes.append((self.names["about"]["time"], record.time))
            self.document.entity(name, attributes)

    def _attributes(self, record: Record) -> list[tuple[Any, Any]]:
        from prov.constants import PROV, PROV_LABEL, PROV_TYPE

        found: list[tuple[Any, Any]] = [(PROV_TYPE, self.names["type"][record.type])]
        special = type_of(record).prov
        if special is not None:
            found.append((PROV_TYPE, PROV[special]))
        if isinstance(record.attributes.get("name"), str):
            found.append((PROV_LABEL, record.attributes["name"]))
        return found + self._literals(record.attributes)

    def _literals(self, attributes: dict[str, Any]) -> list[tuple[Any, Any]]:
        return [
            (self.names["about"][quote(name, safe="")], literal)
            for name, value in attributes.items()
            for literal in self._values(value)
        ]

    def _values(self, value: Any) -> list[Any]:
        """Return JSON scalars as typed literals, a list of different strings as several, and other JSON as its text."""
        from prov.model import Literal

        if isinstance(value, bool | str | float):
            return [value]
        if isinstance(value, int) and abs(value) < 2**31:
            return [value]
        if isinstance(value, datetime):
            return [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value) and len({*value}) == len(value) > 1:
            return value
        return [Literal(json.dumps(value, sort_keys=True, default=str), self.names["type"]["json"])]

    def _relation(self, link: Record, plan: Record | None) -> None:
        from prov import constants

        assert link.source is not None  # the rules have been checked
        assert link.target is not None
        rule = RULES[link.type]
        statement, *ends = rule.prov
        names = map(self.name, (link.source, link.target))
        formal: dict[Any, Any] = dict(zip((constants.PROV[end] for end in ends), names, strict=True))
        if rule.timed and link.time is not None:
            formal[constants.PROV_ATTR_TIME] = link.time
        if plan is not None:
            formal[constants.PROV_ATTR_PLAN] = self.name(plan.target or "")
        extra: list[tuple[Any, Any]] = []
        if not rule.plain:
            roles = link.attributes.get("role", [])
            extra += [(constants.PROV_ROLE, role) for role in (roles if isinstance(roles, list) else [roles])]
            extra += self._literals({name: value for name, value in link.attributes.items() if name != "role"})
        self.document.new_record(constants.PROV[statement], None, formal, extra)
