"""Collections, queues and datasets that receive something are no inputs; what is read from one are its members."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import mutate
from on_record import last_graph

from ivcap_flows import flow, task
from ivcap_flows.capture import use_journal
from ivcap_flows.handles import Artifact, Collection
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Graph
from ivcap_flows.reading import lineage
from ivcap_flows.tasks import (
    add_to_collection,
    collection_items,
    create_collection,
    create_queue,
    delete_queue,
    dequeue,
    download_artifact,
    enqueue,
    get_collection,
    list_aspects,
    list_collections,
    list_queues,
    mint_dataset,
    place_order,
    register_model_run,
    remove_from_collection,
    retract_collection,
    update_aspect,
    upload_artifact,
    upload_directory,
    wait_for_orders,
)

SERVICE = """
def run(request, job):
    job.add_product("joined.txt", f"joined {request['parts']}".encode(), "text/plain")
"""


@pytest.fixture(scope="session")
def joining(serve) -> str:
    """The name of a service whose parameter `parts` is a collection."""
    return serve("joining", SERVICE, [{"name": "parts", "type": "collection"}])


def users(graph: Graph, thing: str) -> set[str]:
    """Return the names of the activities that used a thing."""
    links = graph.relations.values()
    return {graph.nodes[r.source].attributes["name"] for r in links if r.type == "used" and r.target == thing}


def names(journal: Journal, thing: str, direction: str) -> set[str]:
    """Return the ids in a lineage that the journal has."""
    found = lineage(journal, thing, direction)
    assert found is not None
    return set(found.graph.nodes)


def receive(source: Path, unique: str) -> tuple[str, str]:
    """Do with a collection and a queue whatever does not read what is in them. Return their URNs."""
    collection, queue = create_collection(unique), create_queue(f"q-{unique}")
    artifact = upload_artifact(source, collection=collection)
    add_to_collection(collection, artifact)
    add_to_collection(collection.urn, artifact)
    place_order("echo", {"message": unique}, collection=collection)
    update_aspect(collection, {"$schema": "urn:example:schema:note.1", "of": unique})
    list_aspects(collection)
    create_collection(unique), get_collection(collection.urn), list_collections(unique)
    enqueue(queue, {"message": unique}), list_queues()
    remove_from_collection(collection, artifact)
    retract_collection(collection)
    delete_queue(queue)
    return collection.urn, queue.urn


@pytest.mark.mutant(None)
def test_what_only_receives_is_no_input(in_script, ivcap_journal, source, unique):
    """Nothing that is put into a collection or a queue, or said about it, uses it. The run has no such input."""
    collection, queue = in_script(lambda: receive(source, unique))
    graph = last_graph(ivcap_journal)
    assert graph.nodes[collection].type == "collection" and graph.nodes[queue].type == "queue"
    assert users(graph, collection) == users(graph, queue) == set()
    ends = ivcap_journal.lineages.ends(ivcap_journal.runs.recent(1)[0].id, most=1000)
    assert not {collection, queue} & {record.id for record in ends.used}


@pytest.mark.mutant("inputs that are only written to")
def test_a_build_that_uses_what_it_fills_is_found(in_flow, ivcap_journal, source, unique, monkeypatch):
    """The test above fails on a build in which every handle among the arguments is an input."""
    mutate("inputs that are only written to", monkeypatch.setattr)
    collection, queue = in_flow(lambda: receive(source, unique))
    graph = last_graph(ivcap_journal)
    assert {"Place order", "Upload artifact", "Add to collection", "Update aspect"} <= users(graph, collection)
    assert "Enqueue" in users(graph, queue)


def test_what_is_read_is_an_input(in_flow, ivcap_journal, source, unique):
    """Who lists the items of a collection uses it and them. Who takes messages from a queue uses the queue."""

    def body():
        collection, queue = create_collection(unique), create_queue(f"r-{unique}")
        artifact = upload_artifact(source)
        add_to_collection(collection, artifact)
        return collection_items(collection), collection, artifact, queue, dequeue(queue)

    _, collection, artifact, queue, _ = in_flow(body)
    graph = last_graph(ivcap_journal)
    assert users(graph, collection.urn) == {"Collection items"}
    assert users(graph, artifact.urn) == {"Add to collection", "Collection items"}
    assert users(graph, queue.urn) == {"Dequeue"}


@task(name="Publish")
def publish(source: Path, collection: Collection) -> Artifact:
    artifact: Artifact = upload_artifact(source)
    return add_to_collection(collection, artifact) and artifact


@task(name="First of all")
def first_of(collection: Collection) -> str:
    return str(collection_items(collection)[0])


@flow(name="passing-on")
def passing_on(source: Path, collection: Collection, *, reads: bool) -> Artifact:
    artifact: Artifact = publish(source, collection)
    if reads:
        first_of(collection)
    return artifact


@pytest.mark.mutant(None)
def test_what_is_passed_on_to_who_fills_it_is_no_input(in_script, ivcap_journal, source, unique):
    """Neither of the task that passes it on, nor of the flow. Who passes it on to a reader uses it."""
    collection = in_script(lambda: create_collection(unique))
    passing_on(source, collection, reads=False)
    assert users(last_graph(ivcap_journal), collection.urn) == set()
    passing_on(source, collection, reads=True)
    assert users(last_graph(ivcap_journal), collection.urn) == {"passing-on", "First of all", "Collection items"}


@pytest.mark.mutant("no word of inner calls")
def test_a_build_in_which_inner_calls_tell_nothing_is_found(in_script, ivcap_journal, source, unique, monkeypatch):
    """The test above fails on a build in which a call does not know what those within it did."""
    mutate("no word of inner calls", monkeypatch.setattr)
    collection = in_script(lambda: create_collection(unique))
    passing_on(source, collection, reads=False)
    assert users(last_graph(ivcap_journal), collection.urn) == {"passing-on", "Publish"}


def test_who_filled_a_collection_tells_nothing_to_who_fills_it_next(in_flow, ivcap_journal, source, unique):
    """Also if the collection comes as a future: an order does not come from what others put where it puts its own."""

    def body():
        filled = add_to_collection.submit(create_collection(unique), upload_artifact(source))
        order = place_order.submit("echo", {"message": f"to {unique}"}, collection=filled).result()
        return filled.result(), order

    _, order = in_flow(body)
    up = last_graph(ivcap_journal).lineage(order.urn)
    assert {node.attributes["name"] for node in up.nodes.values() if node.type == "task-run"} == {"Place order"}


def test_an_order_comes_from_what_its_collection_had(in_script, ivcap_journal, joining, source, tmp_path, unique):
    """A collection among the parameters, as handle or URN, leads to its members, also to what was uploaded into it; not
    to what another run adds later, nor to what was taken out before."""
    folder = tmp_path / f"parts-{unique}"
    folder.mkdir()
    (folder / "part.txt").write_text(f"{unique} is in it from the beginning")

    def body():
        parts, other = upload_directory(folder, pack="collection"), create_collection(unique)
        uploaded = upload_artifact(source, collection=other.urn)
        [member] = collection_items(parts)
        taken = upload_artifact(f"{unique} for a while".encode(), name="taken")
        add_to_collection(other, taken)
        orders = [place_order(joining, {"parts": parts}, collection=parts, discriminator="handle")]
        orders.append(place_order(joining, {"parts": parts.urn}, collection=parts, discriminator="URN"))
        orders.append(place_order(joining, {"parts": other}, discriminator="before"))
        remove_from_collection(other, taken)
        orders.append(place_order(joining, {"parts": other}, discriminator="after"))
        return parts, member, uploaded, taken, wait_for_orders(orders)

    parts, member, uploaded, taken, (by_handle, by_urn, before, after) = in_script(body)
    later = in_script(lambda: add_to_collection(parts, upload_artifact(b"later")) and upload_artifact(b"later"))
    assert later.urn in last_graph(ivcap_journal).nodes
    for order in (by_handle, by_urn):
        [joined] = order.products
        origins = names(ivcap_journal, joined.urn, "up")
        assert {parts.urn, member.urn} <= origins and later.urn not in origins
        assert {parts.urn, joined.urn} <= names(ivcap_journal, member.urn, "down")
        assert not {joined.urn, order.urn} & names(ivcap_journal, later.urn, "down")
    assert {uploaded.urn, taken.urn} <= names(ivcap_journal, before.urn, "up")
    assert {before.urn, after.urn} <= names(ivcap_journal, uploaded.urn, "down")
    assert taken.urn not in names(ivcap_journal, after.urn, "up")


def test_what_a_run_downloads_of_a_collection_are_the_members_that_it_then_had(
    in_flow, in_script, ivcap_journal, source, tmp_path, unique
):
    """Each downloaded file comes from its own artifact, the task that listed them from all that there were."""

    def body():
        collection = add_to_collection(create_collection(unique), upload_artifact(source))
        return collection, [download_artifact(item, tmp_path / "copy.csv") for item in collection_items(collection)]

    collection, _ = in_flow(body)
    [listing] = [
        node.id
        for node in last_graph(ivcap_journal).nodes.values()
        if node.attributes.get("name") == "Collection items"
    ]
    source.write_text(f"another {unique}")
    later = in_script(lambda: add_to_collection(collection, upload_artifact(source)) and upload_artifact(source))
    assert collection.urn in names(ivcap_journal, listing, "up")
    assert later.urn not in names(ivcap_journal, listing, "up")
    assert listing not in names(ivcap_journal, later.urn, "down")


def test_a_file_of_a_lost_journal_still_comes_from_its_order(in_script, joining, tmp_path, unique):
    """A download that finds the file in place says whose content it has, though no run on record made the file."""
    path = tmp_path / "product"

    def body():
        parts = create_collection(unique)
        [order] = wait_for_orders([place_order(joining, {"parts": parts}, once_per="account")])
        return order, download_artifact(order.products[0], path)

    in_script(body)
    with Journal.open(f"sqlite:///{tmp_path / 'new.sqlite'}") as journal, use_journal(journal):
        order, _ = in_script(body)
        graph = last_graph(journal)
    [file] = [node.id for node in graph.nodes.values() if node.attributes.get("path") == str(path)]
    assert order.urn in graph.lineage(file, "up").nodes


def test_a_registration_uses_the_inputs_of_the_run_and_not_its_outputs(
    in_flow, ivcap_journal, ended_order, artifact, registry, source
):
    """The model run has them. The dataset of each comes from its own artifact, which was there before."""

    def body():
        series = upload_artifact(source)
        datasets = [mint_dataset(each, terms=registry.terms) for each in (series, artifact)]
        run = register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: series},
            outputs={registry.template: artifact},
            terms=registry.terms,
        )
        return series, datasets, run

    series, (of_series, of_output), run = in_flow(body)
    graph = last_graph(ivcap_journal)
    assert "Register model run" in users(graph, series.urn)
    assert "Register model run" not in users(graph, artifact.urn)
    assert {run.urn, of_series.urn, series.urn, artifact.urn} <= graph.lineage(of_output.urn).nodes.keys()
    assert not {run.urn, of_output.urn, artifact.urn} & graph.lineage(of_series.urn).nodes.keys()
    down = graph.lineage(series.urn, "down").nodes.keys()
    assert {of_series.urn, run.urn, of_output.urn} <= down
