"""What each type of thing, and each relation, becomes in each format of a record.

This one table drives the exporters, and the reference page of the provenance model is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ivcap_flows.provenance.records import Kind, Record
from ivcap_flows.provenance.rules import GROUPS, PLANS, RULES, TYPES

__all__ = [
    "RELATION_MAPPINGS",
    "TYPE_MAPPINGS",
    "RelationMapping",
    "TypeMapping",
    "links_table",
    "mapping_of",
    "things_table",
]

Place = Literal["run", "dataset", "facet"]


@dataclass(frozen=True)
class TypeMapping:
    """What one type of thing becomes in each format.

    `prov` is the type that PROV itself has for it, besides our own. `crate` are the types of its entity in an RO-Crate
    (RO-Crate 1.1, Workflow Run Crate 0.5). `lineage` says whether OpenLineage has it as a run, as a dataset, or in a
    facet; `facets` says in which facets. `ivcap` and `provena` say what becomes of it on those platforms, besides its
    part in the record of the run.
    """

    prov: str | None = None
    crate: tuple[str, ...] = ("CreativeWork",)
    lineage: Place | None = "dataset"
    facets: tuple[str, ...] = ()
    ivcap: str = ""
    provena: str = ""


_ACTION: Final = ("CreateAction",)
_FILE: Final = ("File",)
_CODE: Final = ("File", "SoftwareSourceCode", "ComputationalWorkflow")
_TOOL: Final = ("SoftwareApplication",)
_PLAN: Final = ("SoftwareApplication", "CreativeWork")
_MAPPED: Final = "a model run, if a workflow or a task registers it"
_EXTERNAL: Final = "an external dataset, if a workflow or a task registers it"

TYPE_MAPPINGS: Final[Mapping[str, TypeMapping]] = {
    "flow-run": TypeMapping(
        None,
        _ACTION,
        "run",
        ("executionParameters", "environmentVariables", "errorMessage", "sourceCode", "sourceCodeLocation"),
        ivcap="the entity of the run's aspect",
    ),
    "attempt": TypeMapping(
        None, _ACTION, "run", ("parent", "environmentVariables", "errorMessage", "sourceCodeLocation")
    ),
    "task-run": TypeMapping(None, _ACTION, "run", ("parent", "executionParameters", "errorMessage")),
    "call": TypeMapping(None, _ACTION, "run", ("parent", "executionParameters", "errorMessage")),
    "order": TypeMapping(
        None, _ACTION, "run", ("parent", "executionParameters", "errorMessage"), ivcap="itself", provena=_MAPPED
    ),
    "job": TypeMapping(
        None, _ACTION, "run", ("parent", "executionParameters", "errorMessage"), ivcap="itself", provena=_MAPPED
    ),
    "model-run": TypeMapping(None, _ACTION, "run", ("parent",), provena="itself"),
    "study": TypeMapping(None, ("CreativeWork",), None, provena="itself"),
    "activity": TypeMapping(None, _ACTION, "run", ("parent",)),
    "artifact": TypeMapping(None, _FILE, ivcap="itself", provena=_EXTERNAL),
    "file": TypeMapping(None, _FILE),
    "content": TypeMapping(),
    "directory": TypeMapping("Collection"),
    "frame": TypeMapping(),
    "array": TypeMapping(),
    "unhashed": TypeMapping(),
    "collection": TypeMapping("Collection", ivcap="itself"),
    "dataset": TypeMapping("Collection", provena="itself"),
    "dataset-file": TypeMapping(None, _FILE, provena="itself"),
    "registry-item": TypeMapping(provena="itself"),
    "aspect": TypeMapping(ivcap="itself"),
    "parameters": TypeMapping(None, ("PropertyValue",), "facet", ("executionParameters",)),
    "code": TypeMapping(
        "Plan", _CODE, "facet", ("sourceCode", "sourceCodeLocation", "environmentVariables", "processing_engine")
    ),
    "service": TypeMapping("Plan", _PLAN, "facet", ("the name of the job",), ivcap="itself"),
    "queue": TypeMapping(ivcap="itself"),
    "url": TypeMapping(),
    "workflow-template": TypeMapping("Plan", _PLAN, "facet", ("the name of the job",), provena="itself"),
    "entity": TypeMapping(),
    "user": TypeMapping(
        "Person", ("Person",), "facet", ("ownership",), ivcap="itself", provena="the modeller, if linked"
    ),
    "software": TypeMapping("SoftwareAgent", _TOOL, "facet", ("processing_engine",)),
    "organisation": TypeMapping("Organization", ("Organization",), "facet", ("ownership",), provena="itself"),
}
"""`mapping_of` covers the types that are missing here."""


def mapping_of(record: Record) -> TypeMapping:
    """Return the mapping of a record's type. A type that the table lacks has that of its kind and group."""
    if record.type in TYPE_MAPPINGS:
        return TYPE_MAPPINGS[record.type]
    return _by_kind(record.kind, record.type)


def _by_kind(kind: Kind, type_: str) -> TypeMapping:
    if kind == "activity":
        return TypeMapping(None, _ACTION, "run", ("parent",))
    if kind == "agent":
        return TypeMapping(None, ("Person",), "facet", ("ownership",))
    return TypeMapping("Collection" if type_ in GROUPS else "Plan" if type_ in PLANS else None)


@dataclass(frozen=True)
class RelationMapping:
    """What a relation becomes: in an RO-Crate the property `crate` of its end `of`; in OpenLineage `lineage`."""

    crate: str | None
    of: Literal["source", "target"] = "source"
    lineage: str = ""


RELATION_MAPPINGS: Final[Mapping[str, RelationMapping]] = {
    "used": RelationMapping("object", lineage="`inputs`"),
    "wasGeneratedBy": RelationMapping("result", "target", "`outputs`"),
    "wasStartedBy": RelationMapping(None, lineage="facet `parent`"),
    "wasInformedBy": RelationMapping(None, lineage="facet `jobDependencies`"),
    "wasDerivedFrom": RelationMapping("isBasedOn"),
    "wasInfluencedBy": RelationMapping(None),
    "specializationOf": RelationMapping("sameAs", lineage="facet `symlinks`"),
    "alternateOf": RelationMapping("sameAs", lineage="facet `symlinks`"),
    "hadMember": RelationMapping("hasPart"),
    "hadPlan": RelationMapping("instrument", lineage="the job"),
    "wasAssociatedWith": RelationMapping("agent", lineage="facet `ownership`"),
    "wasAttributedTo": RelationMapping("creator"),
    "actedOnBehalfOf": RelationMapping("affiliation"),
}

_CRATE_ALONE: Final = {
    "wasStartedBy": "a `ControlAction` for each step, in the run's `OrganizeAction`",
    "wasInformedBy": "",
}


def things_table() -> str:
    """Return each type of thing with its meaning and what it becomes in each format, as Markdown."""
    head = "| thing | meaning | PROV type | RO-Crate | OpenLineage | IVCAP | Provena |"
    lines: list[str] = []
    for kind, types in TYPES.items():
        if not types:
            continue
        lines += ["", head, "|---|---|---|---|---|---|---|"]
        for name, meaning in types.items():
            mapping = TYPE_MAPPINGS.get(name) or _by_kind(kind, name)
            prov = " ".join([f"`prov:{kind.title()}`", *([f"`prov:{mapping.prov}`"] if mapping.prov else [])])
            crate = " ".join(f"`{each}`" for each in mapping.crate)
            cells = (f"`{name}`", meaning, prov, crate, _lineage(mapping), mapping.ivcap, mapping.provena)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def _lineage(mapping: TypeMapping) -> str:
    named = ", ".join(f"`{facet}`" if " " not in facet else facet for facet in mapping.facets)
    if mapping.lineage in ("facet", None):
        return f"in {named}" if named else "not included"
    return f"{mapping.lineage}, with {named}" if named else str(mapping.lineage)


def links_table() -> str:
    """Return each relation with what it becomes in each format, as Markdown."""
    lines = ["| relation | PROV | RO-Crate | OpenLineage |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        mapping = RELATION_MAPPINGS.get(name, RelationMapping(None))
        statement, source, target = rule.prov
        crate = f"`{mapping.crate}` of the {mapping.of}" if mapping.crate else _CRATE_ALONE.get(name, "")
        lines.append(f"| `{name}` | `{statement}({source}, {target})` | {crate} | {mapping.lineage} |")
    return "\n".join(lines) + "\n"
