"""One thing has one id, in whatever it is told; and no secret is in any of it."""

from __future__ import annotations

import json
from zipfile import ZipFile

import pytest
from exports_worlds import RUNS, SECRET
from rdflib import Graph as Rdf
from rdflib.compare import isomorphic

from ivcap_flows import loop
from ivcap_flows.provenance import prov_json, prov_n, turtle
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.openlineage import dumps, run_id
from ivcap_flows.provenance.things import type_of
from ivcap_flows.sinks import FolderSink, shareable
from ivcap_flows.sinks.contents import Contents
from ivcap_flows.sinks.folder import ENDINGS
from ivcap_flows.sinks.ro_crate import write_crate


@pytest.mark.parametrize("name", RUNS)
def test_a_thing_has_one_id_in_every_sink(world, tmp_path, name):
    """The URI of a thing is in the crate and in OpenLineage's events, as it is in the forms of PROV (test_prov.py)."""
    graph = world.graph(name)
    everything = {uri(id_) for id_ in graph.nodes}

    write_crate(world.run(name), graph, tmp_path / "crate")
    told = json.loads((tmp_path / "crate/ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    ids = {each["@id"] for each in told} | {str(each.get("identifier")) for each in told}
    wanted = {uri(n.id) for n in shareable(graph).nodes.values() if n.type not in ("parameters",)}
    assert wanted <= ids

    events = [json.loads(line) for line in dumps(graph).splitlines()]
    tagged = {tag["value"] for e in events for tag in e["run"]["facets"]["tags"]["tags"] if tag["key"] == "urn"}
    assert tagged == {uri(node.id) for node in graph.nodes.values() if node.kind == "activity"}
    told = [d for e in events for d in (*e["inputs"], *e["outputs"])]
    names = {(d["facets"]["version"]["datasetVersion"], d["namespace"], d["name"]) for d in told}
    datasets = {version for version, _, _ in names}
    assert len(datasets) == len(names)
    moved = {
        uri(end or "")
        for link in graph.relations.values()
        for end in ((link.target if link.type == "used" else link.source),)
        if link.type in ("used", "wasGeneratedBy") and type_of(graph.nodes[end or ""]).lineage == "dataset"
    }
    assert moved <= datasets <= everything
    assert {e["run"]["runId"] for e in events} == {run_id(n.id) for n in graph.nodes.values() if n.kind == "activity"}


@pytest.mark.parametrize("form", ENDINGS)
def test_files_of_sinks_have_the_same_ids(world, tmp_path, form):
    """What a sink writes into a folder is what the export writes; delivered again, it is that one file."""
    run, graph = world.run("spoiled"), world.graph("spoiled")
    for _ in range(2):
        assert loop.run(FolderSink(tmp_path / form, form).deliver(run, graph)).state == "delivered"
    [written] = (tmp_path / form).iterdir()
    assert written.name == f"{run.id}.{run.journal}{ENDINGS[form]}"
    if form == "ro-crate":
        write_crate(run, graph, tmp_path / "crate")
        with ZipFile(written) as zipped:
            inside = {name for name in zipped.namelist() if not name.endswith("/")}
        files = [path for path in (tmp_path / "crate").rglob("*") if path.is_file()]
        assert inside == {path.relative_to(tmp_path / "crate").as_posix() for path in files}
    elif form == "prov-json":
        assert json.loads(written.read_text()) == json.loads(prov_json.dumps(graph))
    elif form == "prov-n":
        assert written.read_text(encoding="utf-8") == prov_n.dumps(graph)
    else:
        # What has no name in RDF comes in any order.
        told, expected = (Rdf().parse(data=text) for text in (written.read_text(encoding="utf-8"), turtle.dumps(graph)))
        assert isomorphic(told, expected)


def test_no_export_holds_a_known_secret(world, tmp_path):
    """One that was a parameter, the name of an artifact, in the environment and in the message of the error."""
    graph, run = world.graph("spoiled"), world.run("spoiled")
    write_crate(run, graph, tmp_path / "crate")
    files = [path.read_bytes().decode(errors="replace") for path in (tmp_path / "crate").rglob("*") if path.is_file()]
    said = [prov_json.dumps(graph), prov_n.dumps(graph), turtle.dumps(graph)]
    said.append(dumps(graph, sources=Contents(graph).sources(run.entry_point)))
    assert "The server refused" in said[0] and "series" in said[0]
    assert not any(SECRET in text for text in (*said, *files))
