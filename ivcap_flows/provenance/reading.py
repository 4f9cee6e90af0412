"""Read records from PROV-JSON that `prov_json` has written, such as the record of another machine's run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from ivcap_flows.provenance.names import NAMESPACES
from ivcap_flows.provenance.records import Kind, Record, relation_id
from ivcap_flows.provenance.rules import RULES
from ivcap_flows.provenance.things import TYPES

__all__ = ["records_of"]

_KINDS: Final[tuple[Kind, ...]] = ("activity", "entity", "agent")
_STATEMENTS: Final = {
    "Usage": "used",
    "Generation": "wasGeneratedBy",
    "Start": "wasStartedBy",
    "Communication": "wasInformedBy",
    "Derivation": "wasDerivedFrom",
    "Influence": "wasInfluencedBy",
    "Specialization": "specializationOf",
    "Alternate": "alternateOf",
    "Membership": "hadMember",
    "Association": "wasAssociatedWith",
    "Attribution": "wasAttributedTo",
    "Delegation": "actedOnBehalfOf",
}
"""The relations of PROV-DM by their names in PROV-JSON (W3C Member Submission of 24 April 2013)."""


def records_of(document: Any) -> list[Record]:
    """Return the records of a PROV-JSON document, without what it has beyond our own terms.

    Raises ValueError if it is not a PROV-JSON document.
    """
    if not isinstance(document, Mapping):
        raise ValueError("A PROV-JSON document must be a JSON object.")
    reader = _Reader({**NAMESPACES, **_mapping(document.get("prefix"))})
    try:
        nodes = [record for kind in _KINDS for record in reader.nodes(kind, _mapping(document.get(kind)))]
        known = {record.id for record in nodes}
        links = [link for name in RULES for link in reader.links(name, document)]
        return [*nodes, *(link for link in links if link.source in known and link.target in known)]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"The PROV-JSON document cannot be read: {error!r}.") from error


class _Reader:
    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._prefixes = prefixes

    def nodes(self, kind: Kind, stated: Mapping[str, Any]) -> Iterator[Record]:
        for name, several in stated.items():
            for statement in several if isinstance(several, list) else [several]:
                attributes = self._attributes(statement)
                time = statement.get("prov:startTime")
                if kind == "entity":
                    time = attributes.pop("time", None)
                ended = statement.get("prov:endTime")
                yield Record(
                    kind=kind,
                    id=self._id(name),
                    type=self._type(statement, kind),
                    time=None if time is None else datetime.fromisoformat(str(time)),
                    ended=None if ended is None else datetime.fromisoformat(str(ended)),
                    attributes=attributes,
                )

    def links(self, name: str, document: Mapping[str, Any]) -> Iterator[Record]:
        rule = RULES[name]
        source, target = (f"prov:{end}" for end in rule.prov[1:])
        for several in _mapping(document.get(_STATEMENTS[rule.prov[0]])).values():
            for statement in several if isinstance(several, list) else [several]:
                if source not in statement or target not in statement:
                    continue
                ends = self._id(_plain(statement[source])), self._id(_plain(statement[target]))
                attributes = self._attributes(statement)
                roles = [_plain(role) for role in _listed(statement.get("prov:role"))]
                if roles:
                    attributes["role"] = roles[0] if len(roles) == 1 else roles
                time = statement.get("prov:time")
                yield Record(
                    kind="relation",
                    id=relation_id(name, *ends),
                    type=name,
                    source=ends[0],
                    target=ends[1],
                    time=None if time is None else datetime.fromisoformat(str(_plain(time))),
                    attributes=attributes,
                )

    def _type(self, statement: Mapping[str, Any], kind: Kind) -> str:
        start = NAMESPACES["type"]
        for given in _listed(statement.get("prov:type")):
            uri = self._uri(str(_plain(given)))
            if uri.startswith(start) and uri[len(start) :] in TYPES[kind]:
                return uri[len(start) :]
        return {"activity": "activity", "entity": "entity", "agent": "software"}[kind]

    def _attributes(self, statement: Mapping[str, Any]) -> dict[str, Any]:
        start, found = NAMESPACES["about"], {}
        for name, value in statement.items():
            uri = self._uri(name)
            if uri.startswith(start):
                values = [_value(one) for one in _listed(value)]
                found[unquote(uri[len(start) :])] = values[0] if len(values) == 1 else values
        return found

    def _id(self, name: str) -> str:
        uri = self._uri(name)
        if uri.startswith(NAMESPACES["handle"]):
            return uri.removeprefix(NAMESPACES["handle"])
        return unquote(uri.removeprefix(NAMESPACES["other"])) if uri.startswith(NAMESPACES["other"]) else uri

    def _uri(self, name: str) -> str:
        prefix, colon, rest = name.partition(":")
        return self._prefixes[prefix] + rest if colon and prefix in self._prefixes else name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    return value["$"] if isinstance(value, Mapping) and "$" in value else value


def _value(value: Any) -> Any:
    """Return a literal as the JSON value that it was."""
    if not isinstance(value, Mapping) or "$" not in value:
        return value
    text, kind = value["$"], str(value.get("type", "")).rpartition(":")[2]
    if kind == "json":
        return json.loads(text)
    if kind in ("int", "integer", "long"):
        return int(text)
    if kind in ("double", "float", "decimal"):
        return float(text)
    if kind == "boolean":
        return text in (True, "true", "1")
    return text
