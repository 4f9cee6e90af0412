"""The form of each type of thing, and of each relation, in each format of a record.

This one table drives the exporters, and the reference page of the provenance model is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ivcap_flows.provenance.records import Kind, Record
from ivcap_flows.provenance.rules import GROUPS, PLANS, RULES, TYPES

__all__ = ["FORMS", "LINKS", "Form", "Link", "form_of", "links_table", "things_table"]

Place = Literal["run", "dataset", "facet"]


@dataclass(frozen=True)
class Form:
    """The form of one type of thing in each format.

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

FORMS: Final[Mapping[str, Form]] = {
    "flow-run": Form(
        None,
        _ACTION,
        "run",
        ("executionParameters", "environmentVariables", "errorMessage", "sourceCode", "sourceCodeLocation"),
        ivcap="the entity of the run's aspect",
    ),
    "attempt": Form(None, _ACTION, "run", ("parent", "environmentVariables", "errorMessage", "sourceCodeLocation")),
    "task-run": Form(None, _ACTION, "run", ("parent", "executionParameters", "errorMessage")),
    "call": Form(None, _ACTION, "run", ("parent", "executionParameters", "errorMessage")),
    "order": Form(
        None, _ACTION, "run", ("parent", "executionParameters", "errorMessage"), ivcap="itself", provena=_MAPPED
    ),
    "job": Form(
        None, _ACTION, "run", ("parent", "executionParameters", "errorMessage"), ivcap="itself", provena=_MAPPED
    ),
    "model-run": Form(None, _ACTION, "run", ("parent",), provena="itself"),
    "study": Form(None, ("CreativeWork",), None, provena="itself"),
    "activity": Form(None, _ACTION, "run", ("parent",)),
    "artifact": Form(None, _FILE, ivcap="itself", provena=_EXTERNAL),
    "file": Form(None, _FILE),
    "content": Form(),
    "directory": Form("Collection"),
    "frame": Form(),
    "array": Form(),
    "unhashed": Form(),
    "collection": Form("Collection", ivcap="itself"),
    "dataset": Form("Collection", provena="itself"),
    "dataset-file": Form(None, _FILE, provena="itself"),
    "registry-item": Form(provena="itself"),
    "aspect": Form(ivcap="itself"),
    "parameters": Form(None, ("PropertyValue",), "facet", ("executionParameters",)),
    "code": Form(
        "Plan", _CODE, "facet", ("sourceCode", "sourceCodeLocation", "environmentVariables", "processing_engine")
    ),
    "service": Form("Plan", _PLAN, "facet", ("the name of the job",), ivcap="itself"),
    "queue": Form(ivcap="itself"),
    "url": Form(),
    "workflow-template": Form("Plan", _PLAN, "facet", ("the name of the job",), provena="itself"),
    "entity": Form(),
    "user": Form("Person", ("Person",), "facet", ("ownership",), ivcap="itself", provena="the modeller, if linked"),
    "software": Form("SoftwareAgent", _TOOL, "facet", ("processing_engine",)),
    "organisation": Form("Organization", ("Organization",), "facet", ("ownership",), provena="itself"),
}
"""The forms by type. `form_of` covers the types that are missing here."""


def form_of(record: Record) -> Form:
    """Return the form of a record's type. A type that the table lacks has the form of its kind and group."""
    if record.type in FORMS:
        return FORMS[record.type]
    return _by_kind(record.kind, record.type)


def _by_kind(kind: Kind, type_: str) -> Form:
    if kind == "activity":
        return Form(None, _ACTION, "run", ("parent",))
    if kind == "agent":
        return Form(None, ("Person",), "facet", ("ownership",))
    return Form("Collection" if type_ in GROUPS else "Plan" if type_ in PLANS else None)


@dataclass(frozen=True)
class Link:
    """The form of a relation: in an RO-Crate the property `crate` of its end `of`; in OpenLineage `lineage`."""

    crate: str | None
    of: Literal["source", "target"] = "source"
    lineage: str = ""


LINKS: Final[Mapping[str, Link]] = {
    "used": Link("object", lineage="`inputs`"),
    "wasGeneratedBy": Link("result", "target", "`outputs`"),
    "wasStartedBy": Link(None, lineage="facet `parent`"),
    "wasInformedBy": Link(None, lineage="facet `jobDependencies`"),
    "wasDerivedFrom": Link("isBasedOn"),
    "wasInfluencedBy": Link(None),
    "specializationOf": Link("sameAs", lineage="facet `symlinks`"),
    "alternateOf": Link("sameAs", lineage="facet `symlinks`"),
    "hadMember": Link("hasPart"),
    "hadPlan": Link("instrument", lineage="the job"),
    "wasAssociatedWith": Link("agent", lineage="facet `ownership`"),
    "wasAttributedTo": Link("creator"),
    "actedOnBehalfOf": Link("affiliation"),
}
"""The links by relation."""

_CRATE_ALONE: Final = {
    "wasStartedBy": "a `ControlAction` for each step, in the run's `OrganizeAction`",
    "wasInformedBy": "",
}


def things_table() -> str:
    """Return each type of thing with its meaning and its form in each sink, as Markdown."""
    head = "| thing | meaning | PROV type | RO-Crate | OpenLineage | IVCAP | Provena |"
    lines: list[str] = []
    for kind, types in TYPES.items():
        if not types:
            continue
        lines += ["", head, "|---|---|---|---|---|---|---|"]
        for name, meaning in types.items():
            form = FORMS.get(name) or _by_kind(kind, name)
            prov = " ".join([f"`prov:{kind.title()}`", *([f"`prov:{form.prov}`"] if form.prov else [])])
            crate = " ".join(f"`{each}`" for each in form.crate)
            cells = (f"`{name}`", meaning, prov, crate, _lineage(form), form.ivcap, form.provena)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def _lineage(form: Form) -> str:
    named = ", ".join(f"`{facet}`" if " " not in facet else facet for facet in form.facets)
    if form.lineage in ("facet", None):
        return f"in {named}" if named else "not included"
    return f"{form.lineage}, with {named}" if named else str(form.lineage)


def links_table() -> str:
    """Return each relation with its form in each sink, as Markdown."""
    lines = ["| relation | PROV | RO-Crate | OpenLineage |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        link = LINKS.get(name, Link(None))
        statement, source, target = rule.prov
        crate = f"`{link.crate}` of the {link.of}" if link.crate else _CRATE_ALONE.get(name, "")
        lines.append(f"| `{name}` | `{statement}({source}, {target})` | {crate} | {link.lineage} |")
    return "\n".join(lines) + "\n"
