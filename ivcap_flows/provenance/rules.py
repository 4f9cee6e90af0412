"""The rules for records: one table of relations with their ends, their limits, and what each becomes in each form.

The table validates every graph, tells the graph in which direction lineage runs, and drives the exporters. The
reference page of the provenance model is generated from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ivcap_flows.provenance.constraints import cycles
from ivcap_flows.provenance.ordering import SINGLE_BIRTH, disordered
from ivcap_flows.provenance.records import Kind, Record
from ivcap_flows.provenance.things import GROUPS, PLANS, TYPES

__all__ = ["BEHIND", "RULES", "WORDS", "WORK", "Rule", "faults", "validate"]

WORK: Final = frozenset({"order", "job"})
"""Work of a platform that one of our activities requested."""

BEHIND: Final = frozenset({"hadPlan", "wasAssociatedWith", "wasAttributedTo", "actedOnBehalfOf"})
"""Relations to what stands behind an activity or thing: plans and people."""
PARTS: Final = frozenset({"attempt", "task-run", "call"})
PEOPLE: Final = frozenset({"user", "organisation"})


@dataclass(frozen=True)
class Rule:
    """One relation: the kinds of its source and target, narrower types if there are any, and its limits.

    `prov` names the PROV-DM record and its formal attributes for source and target. A `plain` relation takes no
    attributes of its own; a `timed` one takes an instant. `same` says that source and target are two names of one
    content, so that lineage runs both ways; otherwise the target is the origin. `once` limits sources of these types to
    one target. `crate` is the property that it becomes in an RO-Crate; `lineage` says where OpenLineage has it.
    """

    name: str
    source: tuple[Kind, ...]
    target: tuple[Kind, ...]
    prov: tuple[str, str, str]
    meaning: str
    same: bool = False
    plain: bool = False
    timed: bool = False
    source_types: frozenset[str] | None = None
    target_types: frozenset[str] | None = None
    once: frozenset[str] = frozenset()
    crate: str | None = None
    lineage: str = ""


def _rules(*rules: Rule) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules}


RULES: Final[Mapping[str, Rule]] = _rules(
    Rule(
        "used",
        ("activity",),
        ("entity",),
        ("Usage", "activity", "entity"),
        "the activity took the entity as input",
        timed=True,
        crate="object",
        lineage="`inputs`",
    ),
    Rule(
        "wasGeneratedBy",
        ("entity",),
        ("activity",),
        ("Generation", "entity", "activity"),
        "the activity made the entity",
        timed=True,
        once=SINGLE_BIRTH,
        crate="result",
        lineage="`outputs`",
    ),
    Rule(
        "wasStartedBy",
        ("activity",),
        ("activity",),
        ("Start", "activity", "starter"),
        "the second activity started the first, which is a part of it",
        timed=True,
        source_types=WORK | PARTS | {"activity"},
        once=WORK | PARTS,
        lineage="facet `parent`",
    ),
    Rule(
        "wasInformedBy",
        ("activity",),
        ("activity",),
        ("Communication", "informed", "informant"),
        "the first activity knew of the second or waited for it",
        lineage="facet `jobDependencies`",
    ),
    Rule(
        "wasDerivedFrom",
        ("entity",),
        ("entity",),
        ("Derivation", "generatedEntity", "usedEntity"),
        "the first entity was made from the second",
        crate="isBasedOn",
    ),
    Rule(
        "wasInfluencedBy",
        ("entity", "activity"),
        ("entity", "activity", "agent"),
        ("Influence", "influencee", "influencer"),
        "a platform reports that the second influenced the first, but not how",
    ),
    Rule(
        "specializationOf",
        ("entity",),
        ("entity",),
        ("Specialization", "specificEntity", "generalEntity"),
        "the first has the content of the second",
        same=True,
        plain=True,
        crate="sameAs",
        lineage="facet `symlinks`",
    ),
    Rule(
        "alternateOf",
        ("entity",),
        ("entity",),
        ("Alternate", "alternate1", "alternate2"),
        "two descriptions of one thing",
        same=True,
        plain=True,
        crate="sameAs",
        lineage="facet `symlinks`",
    ),
    Rule(
        "hadMember",
        ("entity",),
        ("entity",),
        ("Membership", "collection", "entity"),
        "the folder, collection or dataset contains the thing",
        plain=True,
        source_types=GROUPS,
        crate="hasPart",
    ),
    Rule(
        "hadPlan",
        ("activity",),
        ("entity",),
        ("Association", "activity", "plan"),
        "the activity followed the plan: a service, a template or a flow's code",
        target_types=PLANS | {"entity"},
        crate="instrument",
        lineage="the job",
    ),
    Rule(
        "wasAssociatedWith",
        ("activity",),
        ("agent",),
        ("Association", "activity", "agent"),
        "the agent is responsible for the activity",
        crate="agent",
        lineage="facet `ownership`",
    ),
    Rule(
        "wasAttributedTo",
        ("entity",),
        ("agent",),
        ("Attribution", "entity", "agent"),
        "the entity belongs to the agent, as its platform reports",
        target_types=PEOPLE,
        crate="creator",
    ),
    Rule(
        "actedOnBehalfOf",
        ("agent",),
        ("agent",),
        ("Delegation", "delegate", "responsible"),
        "the first agent acted for the second: software for a person, a person for an organisation",
        source_types=frozenset({"software", "user"}),
        target_types=PEOPLE,
        crate="affiliation",
    ),
)
"""Every relation that may be recorded, by its PROV name (W3C PROV-DM, 2013; `hadPlan` is an association's plan)."""

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "used": ("used", "used by"),
    "wasGeneratedBy": ("made by", "made"),
    "wasStartedBy": ("started by", "started"),
    "wasInformedBy": ("informed by", "informed"),
    "wasDerivedFrom": ("derived from", "source of"),
    "wasInfluencedBy": ("influenced by", "influenced"),
    "specializationOf": ("has the content of", "is the content of"),
    "alternateOf": ("also known as", "also known as"),
    "hadMember": ("contains", "contained in"),
    "hadPlan": ("plan", "plan of"),
    "wasAssociatedWith": ("responsible", "responsible for"),
    "wasAttributedTo": ("belongs to", "owns"),
    "actedOnBehalfOf": ("acted for", "represented by"),
}
"""The words for a relation at its source and at its target, in a trace and in a picture."""


def faults(records: Iterable[Record]) -> list[str]:
    """Return what is wrong with the records of one graph, one sentence each; empty if they are valid."""
    nodes: dict[str, Record] = {}
    relations: list[Record] = []
    found: list[str] = []
    for record in records:
        if record.kind == "relation":
            relations.append(record)
            continue
        nodes[record.id] = record
        if record.type not in TYPES[record.kind]:
            found.append(f"{record.id} has the unknown {record.kind} type {record.type!r}.")
    targets: Counter[tuple[str, str]] = Counter()
    for link in relations:
        found += _link_faults(link, nodes)
        if link.source is not None and link.type in RULES:
            targets[link.type, link.source] += 1
    for (name, source), count in targets.items():
        node = nodes.get(source)
        if count > 1 and node is not None and node.type in RULES[name].once:
            found.append(f"{source} has {count} relations {name!r}; a {node.type} may have only one.")
    return found + cycles(relations) + disordered(nodes, relations)


def _link_faults(link: Record, nodes: Mapping[str, Record]) -> list[str]:
    rule = RULES.get(link.type)
    if rule is None:
        return [f"{link.id} has the unknown relation type {link.type!r}."]
    found = []
    ends = (
        ("source", link.source, rule.source, rule.source_types),
        ("target", link.target, rule.target, rule.target_types),
    )
    for name, end, kinds, types in ends:
        node = nodes.get(end) if end is not None else None
        if node is None:
            found.append(f"{link.id} refers to {end!r}, which is not recorded.")
        elif node.kind not in kinds:
            found.append(f"{link.id} has the {node.kind} {end} as its {name}; allowed: {' or '.join(kinds)}.")
        elif types is not None and node.type not in types:
            found.append(f"{link.id} has {end}, a {node.type}, as its {name}; allowed: {', '.join(sorted(types))}.")
    if link.source == link.target:
        found.append(f"{link.id} relates a thing to itself.")
    return found


def validate(records: Iterable[Record]) -> None:
    """Raise ValueError with all faults at once."""
    if found := faults(records):
        raise ValueError("The provenance graph is invalid. " + " ".join(found))
