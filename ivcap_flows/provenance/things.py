"""The types of things: what each is, how its URNs begin, and what it becomes in each form of a record.

This one table validates graphs, drives the exporters, and makes the reference page of the provenance model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from ivcap_flows.provenance.records import Kind, Record

__all__ = ["CONTEXT", "GROUPS", "PLANS", "THINGS", "TYPES", "ThingType", "type_of"]

Place = Literal["run", "dataset", "facet"]


@dataclass(frozen=True)
class ThingType:
    """One type of thing.

    `urn` is how the URNs of such things begin, for code that has only the URN. `prov` is the type that PROV itself has
    for it, besides our own. `crate` are the types of its entity in an RO-Crate (RO-Crate 1.1, Workflow Run Crate 0.5).
    `lineage` says whether OpenLineage has it as a run, as a dataset, or in a facet; `facets` says in which facets.
    `ivcap` and `provena` say what becomes of it on those platforms, besides its part in the record of the run.
    """

    kind: Kind
    meaning: str
    urn: str | None = None
    prov: str | None = None
    crate: tuple[str, ...] = ("CreativeWork",)
    lineage: Place | None = "dataset"
    facets: tuple[str, ...] = ()
    ivcap: str = ""
    provena: str = ""


_activity = partial(ThingType, "activity", crate=("CreateAction",), lineage="run", facets=("parent",))
_entity = partial(ThingType, "entity")
_group = partial(ThingType, "entity", prov="Collection")
_file = partial(ThingType, "entity", crate=("File",))
_plan = partial(
    ThingType,
    "entity",
    prov="Plan",
    crate=("SoftwareApplication", "CreativeWork"),
    lineage="facet",
    facets=("the name of the job",),
)
_agent = partial(ThingType, "agent", prov="Person", crate=("Person",), lineage="facet", facets=("ownership",))

_OF_WORK: Final = ("parent", "executionParameters", "errorMessage")
_MAPPED: Final = "a model run, if a workflow or a task registers it"
_EXTERNAL: Final = "an external dataset, if a workflow or a task registers it"

THINGS: Final[Mapping[str, ThingType]] = {
    "flow-run": _activity(
        "a logical run, which continues over retries, resumes and restarts",
        "urn:ivcap-flows:run:",
        facets=("executionParameters", "environmentVariables", "errorMessage", "sourceCode", "sourceCodeLocation"),
        ivcap="the entity of the run's aspect",
    ),
    "attempt": _activity(
        "one execution of a logical run, or of a subflow in it",
        "urn:ivcap-flows:attempt:",
        facets=("parent", "environmentVariables", "errorMessage", "sourceCodeLocation"),
    ),
    "task-run": _activity("one try of a Prefect task", "urn:ivcap-flows:task-run:", facets=_OF_WORK),
    "call": _activity("a recorded function outside any task", "urn:ivcap-flows:call:", facets=_OF_WORK),
    "order": _activity("an IVCAP order", "urn:ivcap:order:", facets=_OF_WORK, ivcap="itself", provena=_MAPPED),
    "job": _activity("an IVCAP job", "urn:ivcap:job:", facets=_OF_WORK, ivcap="itself", provena=_MAPPED),
    "model-run": _activity("a model run registered with Provena", provena="itself"),
    "study": _activity(
        "a Provena study, which groups model runs", crate=("CreativeWork",), lineage=None, facets=(), provena="itself"
    ),
    "activity": _activity("an activity of which only the URN is known"),
    "artifact": _file("an IVCAP artifact", "urn:ivcap:artifact:", ivcap="itself", provena=_EXTERNAL),
    "file": _file("one version of the file at a path", "urn:ivcap-flows:file:"),
    "content": _entity(
        "the content that files, folders, artifacts, tables and arrays with one sha256 share",
        "urn:ivcap-flows:file:sha256:",
    ),
    "directory": _group("one version of the folder at a path, with its files", "urn:ivcap-flows:directory:"),
    "frame": _entity(
        "one version of a table in memory, with the digest of its content and its columns", "urn:ivcap-flows:frame:"
    ),
    "array": _entity(
        "one version of an array or a data set of arrays in memory, with the digest of its content",
        "urn:ivcap-flows:array:",
    ),
    "unhashed": _entity("a file, folder, table or array whose content was not read, with the reason"),
    "collection": _group(
        "an IVCAP collection of artifacts, or of other things with a URN", "urn:ivcap:collection:", ivcap="itself"
    ),
    "dataset": _group("a Provena dataset", provena="itself"),
    "dataset-file": _file("a file of a Provena dataset", provena="itself"),
    "registry-item": _entity("another item of Provena's registry", provena="itself"),
    "aspect": _entity("an IVCAP aspect", "urn:ivcap:aspect:", ivcap="itself"),
    "parameters": _entity(
        "the parameters that a run was given",
        crate=("PropertyValue",),
        lineage="facet",
        facets=("executionParameters",),
    ),
    "code": _plan(
        "a version of a flow's code",
        crate=("File", "SoftwareSourceCode", "ComputationalWorkflow"),
        facets=("sourceCode", "sourceCodeLocation", "environmentVariables", "processing_engine"),
    ),
    "service": _plan("an IVCAP service, the plan of orders and jobs", "urn:ivcap:service:", ivcap="itself"),
    "queue": _entity("an IVCAP queue of messages", "urn:ivcap:queue:", ivcap="itself"),
    "url": _entity("what an address of the web has"),
    "workflow-template": _plan("a Provena workflow template, the plan of model runs", provena="itself"),
    "entity": _entity("an entity of which only the URN is known"),
    "user": _agent("a person's account", ivcap="itself", provena="the modeller, if linked"),
    "software": _agent(
        "a program and its version", prov="SoftwareAgent", crate=("SoftwareApplication",), facets=("processing_engine",)
    ),
    "organisation": _agent("an organisation", prov="Organization", crate=("Organization",), provena="itself"),
}
"""Each type by its name. A relation's type is the name of its rule."""

TYPES: Final[Mapping[Kind, frozenset[str]]] = {
    kind: frozenset(name for name, each in THINGS.items() if each.kind == kind)
    for kind in ("activity", "entity", "agent", "relation")
}
"""The names of the types of each kind."""

GROUPS: Final = frozenset(name for name, each in THINGS.items() if each.prov == "Collection")
PLANS: Final = frozenset(name for name, each in THINGS.items() if each.prov == "Plan")
CONTEXT: Final = PLANS | {"parameters"}
"""The types of entities that say how something was done, and are no data."""

_OTHERS: Final[Mapping[Kind, ThingType]] = {
    "activity": _activity(""),
    "entity": _entity(""),
    "agent": _agent("", prov=None),
    "relation": ThingType("relation", ""),
}


def type_of(record: Record) -> ThingType:
    """Return the type of a record's thing. One that the table lacks is like others of its kind."""
    return THINGS.get(record.type) or _OTHERS[record.kind]
