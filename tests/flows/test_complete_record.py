"""The examples speak of no provenance; what came of them on the platforms is in their record, and nothing else is."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import (
    temporary_settings,
)

from flows.coastal_el_nino import coastal_el_nino
from flows.order_pipeline import order_pipeline
from flows.register_runs import register_runs
from ivcap_flows import local, loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.identity import digest
from ivcap_flows.journal import Journal
from ivcap_flows.local.register import read_definition, register
from ivcap_flows.provena.models import ModelRun
from ivcap_flows.provena.registry import SUBTYPES
from ivcap_flows.provenance import Graph
from ivcap_flows.sinks import run_graph

ROOT = Path(__file__).parents[2]
OWN = ("urn:ivcap-flows:schema:", "urn:ivcap:schema:")
"""Schemas of aspects that a platform keeps its books with, or that effects are found again by."""

RUNS = {
    "coastal-el-nino": lambda output: coastal_el_nino(output=output),
    "order-pipeline": lambda output: asyncio.run(
        order_pipeline(bases=("1961-1990", "1981-2010"), seasons=("DJF",), resamples=100, output=output)
    ),
    "register-runs": lambda output: register_runs(window_years=(55,), base_years=(50,), output=output),
}


@dataclass
class Books:
    """What is on both platforms: the bytes of artifacts, orders with what they took and made, and so on, by id."""

    artifacts: dict[str, str] = field(default_factory=dict)
    orders: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    aspects: set[str] = field(default_factory=set)
    model_runs: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)

    @classmethod
    async def read(cls) -> Books:
        books = cls()
        async with IvcapCredentials.from_environment().get_client() as ivcap:
            async for artifact in ivcap.artifacts.list():
                content = await ivcap.artifacts.read_bytes(artifact.urn, limit=2**24)
                books.artifacts[artifact.urn] = digest(content)
            async for listed in ivcap.orders.list():
                order = await ivcap.orders.read(listed.urn)
                made = {product.urn async for product in ivcap.orders.products(order.urn)}
                books.orders[order.urn] = (books.artifacts.keys() & set(order.values().values()), made)
            async for aspect in ivcap.aspects.list(include_content=False):
                # What a service says of its own job is the job's result.
                if not aspect.schema_urn.startswith(OWN) and not aspect.entity.startswith("urn:ivcap:job:"):
                    books.aspects.add(aspect.urn)
        async with ProvenaCredentials.from_environment().get_client() as provena:
            # How an item came to be is the registry's own record of it.
            for subtype in SUBTYPES.keys() - {"CREATE", "VERSION"}:
                async for item in provena.registry.list(subtype):
                    books.items.add(item.id)
            async for run in provena.registry.list(ModelRun):
                record = run.info.record
                took, made = ({d.dataset_id for d in ends} for ends in (record.inputs, record.outputs))
                books.model_runs[run.id] = (took, made)
        return books


@pytest.fixture
def fresh(prefect_settings: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Embedded platforms on which nothing has been done but the registration of the examples' services."""
    embedded = local.ensure(tmp_path / "embedded")
    for name, value in embedded.environment.items():
        monkeypatch.setenv(name, value)
    for path in (ROOT / "flows/services").glob("*.yaml"):
        register(embedded.url, embedded.environment["IVCAP_JWT"], read_definition(path), path)
    with temporary_settings(prefect_settings):
        yield
    embedded.end()


def ends(graph: Graph, relation: str, activity: str) -> set[str]:
    """What an activity used, or generated."""
    if relation == "used":
        return {r.target for r in graph.relations.values() if r.type == "used" and r.source == activity}
    return {r.source for r in graph.relations.values() if r.type == "wasGeneratedBy" and r.target == activity}


def of(graph: Graph, *types: str) -> set[str]:
    return {node.id for node in graph.nodes.values() if node.type in types}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "coastal-el-nino" else pytest.mark.long) for name in RUNS]
)
@pytest.mark.xdist_group("e2e")  # which shares the Prefect server
def test_the_graph_of_an_example_is_what_happened(fresh, tmp_path, name):
    """By the platforms' own books: every artifact, order, aspect and item, and what each took and made."""
    before: Any = loop.run(Books.read())
    output = tmp_path / "output"
    with Journal.open(f"sqlite:///{tmp_path / 'complete.sqlite'}") as journal, use_journal(journal):
        RUNS[name](output)
        [run] = journal.runs.recent()
        graph = run_graph(journal, run.id)
    books = loop.run(Books.read())

    assert of(graph, "artifact") == books.artifacts.keys()
    for urn, sha256 in books.artifacts.items():
        assert graph.nodes[urn].attributes.get("sha256", sha256) == sha256
    assert of(graph, "order") == books.orders.keys()
    for urn, (took, made) in books.orders.items():
        assert (ends(graph, "used", urn) & books.artifacts.keys(), ends(graph, "generated", urn)) == (took, made)
    assert of(graph, "aspect") == books.aspects - before.aspects
    assert of(graph, "model-run") == books.model_runs.keys()
    for urn, (took, made) in books.model_runs.items():
        assert (ends(graph, "used", urn), ends(graph, "generated", urn)) == (took, made)
    assert books.items - before.items <= graph.nodes.keys()
    # What was there before is at most referred to.
    assert of(graph, "dataset", "registry-item", "workflow-template") <= books.items

    there = {digest(path.read_bytes()) for path in output.rglob("*") if path.is_file()}
    assert there <= {node.attributes.get("sha256") for node in graph.nodes.values() if node.type == "file"}
    assert {node.attributes["outcome"] for node in graph.nodes.values() if node.type == "flow-run"} == {"completed"}


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.stem)
def test_no_example_speaks_of_provenance(path):
    """Of what records, they use the decorator alone."""
    names = {
        f"{node.module}.{alias.name}" if node.module != "ivcap_flows" else alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ivcap_flows")
        for alias in node.names
    }
    assert not {name for name in names if name.startswith(("ivcap_flows.capture", "ivcap_flows.provenance"))}
    assert not names & {"annotate", "ivcap_flows.sinks", "ivcap_flows.reading"}
