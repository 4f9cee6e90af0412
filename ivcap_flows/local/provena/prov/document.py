"""The provenance of a model run, a creation and a new version: nodes and relations, and their PROV-JSON.

Each relation points from effect to cause.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Lineage", "Node", "Relation", "of_creation", "of_run", "of_version"]

_ENDS: Final = {
    "wasInformedBy": ("prov:informed", "prov:informant"),
    "used": ("prov:activity", "prov:entity"),
    "wasGeneratedBy": ("prov:entity", "prov:activity"),
    "wasAssociatedWith": ("prov:activity", "prov:agent"),
    "wasAttributedTo": ("prov:entity", "prov:agent"),
    "hadMember": ("prov:collection", "prov:entity"),
    "wasInfluencedBy": ("prov:influencee", "prov:influencer"),
}


@dataclass(frozen=True)
class Node:
    """An item in the graph."""

    id: str
    category: str
    subtype: str

    @property
    def shown(self) -> dict[str, str]:
        return {"id": self.id, "item_category": self.category, "item_subtype": self.subtype}


@dataclass(frozen=True)
class Relation:
    """An edge from effect to cause."""

    source: str
    type: str
    target: str


@dataclass(frozen=True)
class Lineage:
    """The nodes and relations of one activity."""

    nodes: tuple[Node, ...]
    relations: tuple[Relation, ...]

    def prov_json(self) -> str:
        """Return the PROV-JSON text, with the relations numbered in order of their creation."""
        document: dict[str, Any] = {"prefix": {"default": "http://hdl.handle.net/"}}
        for node in self.nodes:
            document.setdefault(node.category.lower(), {})[node.id] = node.shown
        for number, relation in enumerate(self.relations, 1):
            ends = dict(zip(_ENDS[relation.type], (relation.source, relation.target), strict=True))
            document.setdefault(relation.type, {})[f"_:id{number}"] = ends
        return json.dumps(document)


def of_run(run_id: str, record: dict[str, Any], model_id: str) -> Lineage:
    """Return the lineage of a model run. Its workflow template appears as WORKFLOW_TEMPLATE, as Provena writes it."""
    workflow, people = record["workflow_template_id"], record["associations"]
    person, organisation = people["modeller_id"], people["requesting_organisation_id"]
    datasets = [*record["inputs"], *record["outputs"]]
    templates = dict.fromkeys(dataset["dataset_template_id"] for dataset in datasets)
    inputs, outputs = ([dataset["dataset_id"] for dataset in record[end]] for end in ("inputs", "outputs"))

    nodes = [Node(run_id, "ACTIVITY", "MODEL_RUN"), Node(person, "AGENT", "PERSON")]
    relations: list[Relation] = []
    if record["study_id"] is not None:
        nodes.append(Node(record["study_id"], "ACTIVITY", "STUDY"))
        relations.append(Relation(run_id, "wasInformedBy", record["study_id"]))
    nodes += [Node(dataset, "ENTITY", "DATASET") for dataset in dict.fromkeys([*inputs, *outputs])]
    relations += [Relation(run_id, "used", dataset) for dataset in inputs]
    relations += [Relation(dataset, "wasGeneratedBy", run_id) for dataset in outputs]
    nodes += [Node(model_id, "ENTITY", "MODEL"), Node(workflow, "ENTITY", "WORKFLOW_TEMPLATE")]
    relations += [Relation(run_id, "used", model_id), Relation(run_id, "used", workflow)]
    relations.append(Relation(run_id, "wasAssociatedWith", person))
    if organisation is not None:
        nodes.append(Node(organisation, "AGENT", "ORGANISATION"))
        relations.append(Relation(run_id, "wasAssociatedWith", organisation))
    relations += [Relation(dataset, "wasAttributedTo", person) for dataset in outputs]
    for template in templates:
        nodes.append(Node(template, "ENTITY", "DATASET_TEMPLATE"))
        relations.append(Relation(workflow, "hadMember", template))
        relations += [
            Relation(dataset["dataset_id"], "wasInfluencedBy", template)
            for dataset in datasets
            if dataset["dataset_template_id"] == template
        ]
    relations.append(Relation(workflow, "hadMember", model_id))
    return Lineage(tuple(nodes), tuple(relations))


def of_creation(activity: str, item: Node, person: str) -> Lineage:
    """Return the lineage of an item's creation."""
    return Lineage(
        (Node(activity, "ACTIVITY", "CREATE"), item, Node(person, "AGENT", "PERSON")),
        (
            Relation(item.id, "wasGeneratedBy", activity),
            Relation(activity, "wasAssociatedWith", person),
            Relation(item.id, "wasAttributedTo", person),
        ),
    )


def of_version(activity: str, old: str, new: Node, person: str) -> Lineage:
    """Return the lineage of a new version of an item."""
    return Lineage(
        (
            Node(activity, "ACTIVITY", "VERSION"),
            Node(old, new.category, new.subtype),
            new,
            Node(person, "AGENT", "PERSON"),
        ),
        (
            Relation(new.id, "wasGeneratedBy", activity),
            Relation(activity, "wasAssociatedWith", person),
            Relation(new.id, "wasAttributedTo", person),
            Relation(activity, "used", old),
        ),
    )
