"""PROV-JSON, PROV-N and Turtle of recorded runs, as the `prov` library reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
import rdflib
from exports_worlds import RUNS
from prov.identifier import QualifiedName
from prov.model import ProvDocument

from ivcap_flows.provenance import Graph, activity, entity, faults, prov_json, prov_n, relation, turtle
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.prov_json import document


def said(document: ProvDocument) -> Counter[tuple[str, ...]]:
    """What a document says, whatever its prefixes: kinds, ids and relations by their ends, times and roles aside."""
    found: Counter[tuple[str, ...]] = Counter()
    for record in document.get_records():
        kind = str(record.get_type())
        if record.identifier is not None:
            found[kind, record.identifier.uri] += 1
        elif kind != "prov:Association":
            ends = [value.uri for _, value in record.formal_attributes if isinstance(value, QualifiedName)]
            found[(kind, *ends)] += 1
    return found


def associations(graph: Graph) -> set[tuple[str, str]]:
    links = [link for link in graph.relations.values() if link.type in ("wasAssociatedWith", "hadPlan")]
    return {(uri(link.source or ""), uri(link.target or "")) for link in links}


def associations_in(text: str) -> set[tuple[str, str]]:
    """The agents and plans of activities. The library reads several of one activity as one, though all are written."""
    triples = rdflib.Graph().parse(data=text, format="turtle")
    prov = rdflib.Namespace("http://www.w3.org/ns/prov#")
    found = set(triples.subject_objects(prov.wasAssociatedWith))
    found |= set(triples.subject_objects(prov.qualifiedAssociation / prov.agent))
    found |= set(triples.subject_objects(prov.qualifiedAssociation / prov.hadPlan))
    return {(str(activity), str(other)) for activity, other in found}


@pytest.mark.parametrize("name", RUNS)
def test_every_format_is_read_back(world, name):
    """PROV-JSON and PROV-N are read as they were written; Turtle says the same of the same things."""
    graph = world.graph(name)
    assert faults(graph) == []
    written = document(graph)
    assert ProvDocument.deserialize(content=prov_json.dumps(graph), format="json") == written
    assert ProvDocument.deserialize(content=prov_n.dumps(graph), format="provn") == written
    read = ProvDocument.deserialize(content=turtle.dumps(graph), format="rdf", rdf_format="turtle")
    assert said(read) == said(written)
    assert associations_in(turtle.dumps(graph)) == associations(graph)
    ids = {record.identifier.uri for record in read.get_records() if record.identifier is not None}
    assert ids == {uri(id_) for id_ in graph.nodes}
    kinds = Counter(str(record.get_type()) for record in written.get_records())
    print(name, len(graph), "statements", dict(kinds))


SEVERAL = """
from ivcap_flows.provenance import activity, prov_json, prov_n

run = [activity("urn:x:a", "task-run", name="several", tags=[f"tag {number}" for number in range(9)])]
print(prov_json.dumps(run), prov_n.dumps(run))
"""


def test_a_record_is_the_same_text_in_each_process():
    """Where texts hash otherwise."""
    texts = [
        subprocess.run(
            [sys.executable, "-c", SEVERAL],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        )
        for seed in "123"
    ]
    assert len({each.stdout for each in texts}) == 1 and b"tag 8" in texts[0].stdout


@pytest.mark.parametrize(
    "name", ['a" . <urn:x:s> <urn:x:p> "', "')\nentity(urn:x:s)", "\\", '"""', "]) entity(urn:x:s)"]
)
def test_no_name_is_a_statement(name):
    """What others named is one text in each format, whatever its quotes and brackets."""
    records = [activity("urn:x:a", "task-run", name=name), entity("urn:x:b", "file", path=name, note=name)]
    graph = Graph([*records, relation("wasGeneratedBy", "urn:x:b", "urn:x:a")])
    written = document(graph)
    assert ProvDocument.deserialize(content=prov_json.dumps(graph), format="json") == written
    assert ProvDocument.deserialize(content=prov_n.dumps(graph), format="provn") == written
    triples = rdflib.Graph().parse(data=turtle.dumps(graph), format="turtle")
    assert {str(one) for one in triples.subjects() if isinstance(one, rdflib.URIRef)} == {"urn:x:a", "urn:x:b"}
    assert any(str(value) == name for value in triples.objects())
