"""The record of the examples: all that is on the platforms, and traces that lead to what a thing came from, or to what
came of it, and to nothing else."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from on_platforms import register_examples
from on_record import last_graph
from platform_books import Contents
from prefect.settings import temporary_settings
from prov.model import ProvDocument, ProvRelation
from table_server import measured, noaa_text, table_server

from flows.coastal_el_nino import coastal_el_nino
from flows.order_pipeline import order_pipeline
from flows.register_runs import register_runs
from flows.services.months import Month
from ivcap_flows import local, loop
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.blocks.configured_platforms import configured_platforms
from ivcap_flows.capture import use_journal
from ivcap_flows.capture.files import urn_at
from ivcap_flows.cli import main
from ivcap_flows.handles import ModelRun
from ivcap_flows.identity import digest
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Direction, Graph
from ivcap_flows.provenance.names import NAMESPACES
from ivcap_flows.reading import lineage
from ivcap_flows.sinks import IvcapSink, drain, run_graph
from ivcap_flows.sinks.folder import text_of

PRODUCTS = ("index.csv", "events.csv", "plot.png")

ROOT = Path(__file__).parents[2]
BASE = (1971, 2000)
SHARED = frozenset({"flow-run", "attempt", "parameters", "code", "user", "software", "service", "content"})
"""Types of what is on the way of everything that a run made, and contents, which are the digests of files."""
BOTH: tuple[Direction, ...] = ("up", "down")

# The world of a year takes its time; it is made once.
pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(600)]


@dataclass
class Published:
    """A month that was published: its artifacts, order, datasets, model run and files, by what they are."""

    run: str
    things: dict[str, str]


@dataclass
class World:
    """The journal with all runs, their output, and what they published, by month."""

    journal: Journal
    environment: Mapping[str, str]
    output: Path
    before: Contents
    """What was on the platforms before the first run."""
    backfill: dict[str, Published] = field(default_factory=dict)
    scheduled: dict[str, Published] = field(default_factory=dict)

    @property
    def series(self) -> dict[str, dict[str, Published]]:
        return {"backfill": self.backfill, "scheduled": self.scheduled}

    def names(self, thing: str, direction: Direction) -> Counter[tuple[str, str]]:
        """Return what a trace has, by type and name, but for the types `SHARED`."""
        found = lineage(self.journal, thing, direction)
        assert found is not None
        return self.named(found.graph)

    def named(self, graph: Graph) -> Counter[tuple[str, str]]:
        said = [(node.type, node.attributes) for node in graph.nodes.values() if node.type not in SHARED]
        return Counter((type_, self._name(each)) for type_, each in said)

    def _name(self, attributes: Mapping[str, Any]) -> str:
        path = attributes.get("path")
        if path is not None:
            return Path(path).relative_to(self.output).as_posix() if str(self.output) in path else Path(path).name
        return str(attributes.get("name", ""))

    def note(self, made: ModelRun, folder: Path) -> Published:
        """Return what was published of a month; of the files, the versions that are there now."""
        run, order = self.journal.runs.recent(1)[0].id, str(made.subject)
        graph = run_graph(self.journal, run)

        links = [(link.type, str(link.source), str(link.target)) for link in graph.relations.values()]
        made_by = [source for type_, source, target in links if (type_, target) == ("wasGeneratedBy", order)]
        products = {f"artifact {graph.nodes[urn].attributes['name']}": urn for urn in made_by}
        used = [target for type_, source, target in links if (type_, source) == ("used", order)]
        [series] = [urn for urn in used if urn.startswith("urn:ivcap:artifact:")]
        about = ("wasInfluencedBy", products["artifact events.csv"])
        [aspect] = [source for type_, source, target in links if (type_, target) == about]
        return Published(
            run,
            {
                "artifact series": series,
                "order": order,
                "model run": made.urn,
                "aspect": aspect,
                **products,
                **{f"file {name}": str(urn_at(folder / name)) for name in ("series.csv", *PRODUCTS)},
                **{f"dataset {number}": urn for number, urn in enumerate([*made.inputs, *made.outputs])},
            },
        )


@pytest.fixture(
    scope="module", params=[pytest.param((2, 0), id="short"), pytest.param((6, 12), id="long", marks=pytest.mark.long)]
)
def world(
    request: pytest.FixtureRequest, prefect_settings: dict[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A backfill of some months in one run, and as many runs of a schedule as the table that they read has months."""
    months, runs = request.param
    folder = tmp_path_factory.mktemp("traces")
    embedded = local.ensure(folder / "embedded", idle=600)
    register_examples(embedded)
    with pytest.MonkeyPatch.context() as patch, Journal.open(f"sqlite:///{folder / 'journal.sqlite'}") as journal:
        for name, value in embedded.environment.items():
            patch.setenv(name, value)
        world = World(journal, dict(embedded.environment), folder / "output", loop.run(Contents.read()))
        with temporary_settings(prefect_settings), use_journal(journal), table_server() as noaa:
            common = {"base_start": BASE[0], "base_end": BASE[1]}
            output = world.output / "backfill"
            last = f"2010-{months:02}"
            backfilled = coastal_el_nino(first_month="2010-01", last_month=last, output=output, **common)
            for month, (_, made, _) in backfilled.items():
                world.backfill[month] = world.note(made, output / month)
            for number in range(runs):
                values = {at: value for at, value in measured().items() if at <= Month(2008, number + 1)}
                noaa.serve(noaa_text(values))
                output = world.output / "scheduled"
                [(month, (_, made, _))] = coastal_el_nino(source=noaa.url, output=output, **common).items()
                world.scheduled[month] = world.note(made, output / month)
        yield world
    embedded.end()


def leaks(world: World, read: Callable[[str, Direction], Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Return which things have something of another month in what `read` finds of them."""
    found = set()
    for months in world.series.values():
        for month, published in months.items():
            others = {urn for other, each in months.items() if other != month for urn in each.things.values()}
            assert not others & set(published.things.values())
            for name, urn in published.things.items():
                for direction in BOTH:
                    reached = set(read(urn, direction))
                    assert urn in reached
                    if others & reached:
                        found.add((f"{month} {name} {direction}", sorted(others & reached)[0]))
    return found


def several(names: str, type_: str, *cases: str) -> list[tuple[str, str]]:
    """Return a thing of a type for each case, which the name has in place of `*`."""
    return [(type_, names.replace("*", case)) for case in cases]


def test_nothing_of_another_month_is_in_the_trace_of_a_month(world):
    """Of every artifact, order, file, dataset, aspect and model run of every month, upwards and downwards."""

    def read(urn: str, direction: Direction) -> Mapping[str, Any]:
        found = lineage(world.journal, urn, direction)
        assert found is not None
        return found.graph.nodes

    assert leaks(world, read) == set()


def test_the_platforms_tell_nothing_of_another_month(world, tmp_path, monkeypatch):
    """Another machine, which knows only what the runs delivered, gets no more than this one."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    [report] = drain(world.journal, [IvcapSink(IvcapCredentials.from_environment().get_client(), world.journal)])
    assert (report.pending, report.dead) == (0, 0)
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:

        def read(urn: str, direction: Direction) -> Mapping[str, Any]:
            found = lineage(other, urn, direction, configured_platforms())
            return {urn: None} if found is None else found.graph.nodes

        assert leaks(world, read) == set()
        [first, *_] = world.backfill.values()
        assert first.things["artifact series"] in read(first.things["artifact events.csv"], "up")


def test_who_follows_the_statements_of_an_export_finds_nothing_of_another_month(world):
    """From each thing through every statement of PROV to its object: no rules of this package are needed for that. The
    three forms of PROV are the same document."""
    exports: dict[str, dict[str, list[str]]] = {}

    def steps(run: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        text = text_of("prov-json", world.journal.runs.get(run), run_graph(world.journal, run))
        for record in ProvDocument.deserialize(content=text, format="json").get_records(ProvRelation):
            (_, source), (_, target), *_ = record.formal_attributes
            if source is not None and target is not None:
                found[source.uri].append(target.uri)
        return found

    def read(urn: str, direction: Direction) -> set[str]:
        run = next(p.run for months in world.series.values() for p in months.values() if urn in p.things.values())
        if run not in exports:
            exports[run] = steps(run)
        start = NAMESPACES["handle"] + urn if re.fullmatch(r"[\d.]+/\d+", urn) else urn
        found, queue = {start}, [start]
        while queue if direction == "up" else ():
            fresh = set(exports[run][queue.pop()]) - found
            found |= fresh
            queue += fresh
        return {each.removeprefix(NAMESPACES["handle"]) for each in found}

    assert leaks(world, read) == set()
    [first, *_] = world.backfill.values()
    assert first.things["artifact series"] in read(first.things["artifact events.csv"], "up")


def test_what_receives_is_no_input_in_any_export(world, tmp_path):
    """Of no activity in OpenLineage and in RO-Crate, which name inputs by activity, and not of a run."""
    runs = {published.run for months in world.series.values() for published in months.values()}
    for run in map(world.journal.runs.get, runs):
        graph = run_graph(world.journal, run.id)
        [collection] = [node.id for node in graph.nodes.values() if node.type == "collection"]
        assert not [link.id for link in graph.relations.values() if link.type == "used" and link.target == collection]
        events = [json.loads(line) for line in text_of("openlineage", run, graph).splitlines()]
        named = {each["name"] for event in events for each in event["inputs"]}
        assert named and not {collection, graph.nodes[collection].attributes["name"]} & named
        crate = tmp_path / run.id
        with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
            patch.setenv("IVCAP_FLOWS_JOURNAL", world.journal.url)
            main(["export", run.id, "--format", "ro-crate", "-o", str(crate)])
        things = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
        objects = [each.get("object", []) for each in things]
        assert {"@id": collection} not in [
            part for some in objects for part in (some if type(some) is list else [some])
        ]


def test_what_a_trace_prints_is_of_its_own_month(world, tmp_path, monkeypatch, capsys):
    """As text with whole names, as a flowchart, and in the page, which holds all that it can show."""
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", world.journal.url)
    (month, first), (other, second), *_ = world.backfill.items()
    page = tmp_path / "page.html"
    cases = product((["--full"], ["--mermaid"], ["--html", str(page)]), ("artifact plot.png", "file events.csv"), BOTH)
    for options, thing, direction in cases:
        with pytest.raises(SystemExit) as ended:
            main(["trace", first.things[thing], f"--{direction}", *options])
        out = capsys.readouterr().out + (page.read_text(encoding="utf-8") if "--html" in options else "")
        assert ended.value.code == 0 and ("--full" not in options or month in out)
        assert not [name for name, urn in second.things.items() if urn in out]
        assert f"backfill/{other}" not in out and f"to {other}" not in out


def test_the_traces_of_a_month_as_exact_sets(world):
    """Upwards from the events table to the source; downwards from the series to all that came of it, and from a
    picture, which nothing took, to its file."""
    collection = ("collection", f"Coastal El Niño index against {BASE[0]}-{BASE[1]}")
    for kind, months in world.series.items():
        for month, published in months.items():
            folder, source = f"{kind}/{month}", [("file", "ersst_nino12_monthly.csv")]
            if kind == "scheduled":
                source = [("file", "scheduled/table.txt"), ("task-run", "Fetch url"), ("url", "")]
            index = f"Coastal El Niño index to {month} against {BASE[0]}-{BASE[1]}"
            series = ("artifact", f"Monthly sea surface temperature to {month}")
            order = [series, ("task-run", "Place order"), ("order", index)]
            products, files = several("*", "artifact", *PRODUCTS), several(f"{folder}/*", "file", *PRODUCTS)
            download, events = ("task-run", "Download artifact"), PRODUCTS.index("events.csv")
            before = [*source, ("task-run", "Cut the series"), ("file", f"{folder}/series.csv")]
            assert world.names(published.things["file events.csv"], "up") == Counter(
                [*before, ("task-run", "Upload artifact"), *order, products[events], download, files[events]]
            )
            assert world.names(published.things["artifact series"], "down") == Counter(
                [
                    *order,
                    *products,
                    *files,
                    *[download] * len(files),
                    collection,
                    *several("*", "task-run", "Add to collection", "Wait for orders", "Register model run"),
                    *several("*", "task-run", "Read the events", "Attach aspect"),
                    ("aspect", ""),
                    *several("*", "call", "alinked_person", *["amint_dataset"] * 3),
                    ("model-run", index),
                    ("dataset", series[1]),
                    *several("*", "dataset", "index.csv", "events.csv"),
                ]
            )
            plot = PRODUCTS.index("plot.png")
            down = [products[plot], collection, download, files[plot]]
            assert world.names(published.things["artifact plot.png"], "down") == Counter(down)
            assert world.names(published.things["file plot.png"], "down") == Counter(files[plot : plot + 1])


@pytest.fixture
def recording(world: World, prefect_settings: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world while it records what the test runs."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    with temporary_settings(prefect_settings), use_journal(world.journal):
        yield world


@pytest.mark.long
def test_the_trace_of_the_pipelines_report_as_an_exact_set(recording):
    """Upwards all orders of all base periods, and neither the plots nor what other flows did on the platform.

    The plot, which nothing took, came to its file alone.
    """
    bases = ("1961-1990", "1981-2010")
    made = asyncio.run(
        order_pipeline(bases=bases, seasons=("DJF",), resamples=100, output=recording.output / "pipeline")
    )
    graph = last_graph(recording.journal)
    [report] = [node.id for node in graph.nodes.values() if node.attributes.get("name") == "Report on all seasons"]
    made_by = {link.source: link.target for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    [plot] = [
        urn for urn, by in made_by.items() if by == report and graph.nodes[str(urn)].attributes["name"] == "plot.png"
    ]
    assert recording.names(str(urn_at(made["report.md"].path)), "up") == Counter(
        [
            ("file", "ersst_nino12_monthly.csv"),
            ("artifact", "Monthly sea surface temperature"),
            *several("Index against *", "order", *bases),
            *several("DJF against *", "order", *bases),
            *several("Return periods against *", "order", *bases),
            *several("*.csv", "artifact", "index", "index", "season", "season", "returns", "returns"),
            *several("pipeline/seasons/*/DJF/season.csv", "file", *bases),
            *several("pipeline/returns/*/all/returns.csv", "file", *bases),
            *several("pipeline/*.csv", "file", "seasons", "returns"),
            *several("*.csv", "artifact", "seasons", "returns"),
            ("order", "Report on all seasons"),
            ("artifact", "report.md"),
            ("file", "pipeline/report.md"),
            *[("task-run", "Upload artifact")] * 3,
            *[("task-run", "Place order")] * 7,
            *[("task-run", "Download artifact")] * 5,
            *[("task-run", "Join tables")] * 2,
        ]
    )
    assert recording.names(plot, "down") == Counter(
        [("artifact", "plot.png"), ("task-run", "Download artifact"), ("file", "pipeline/plot.png")]
    )


@pytest.mark.long
def test_the_trace_of_a_model_run_of_many_as_an_exact_set(recording):
    """Upwards its own order and series, though one task registered all. Downwards the table of all that it wrote."""
    made, _ = register_runs(window_years=(55,), base_years=(50,), output=recording.output / "runs")
    first = made.runs[0]
    assert len(made.runs) == 4
    name = "Coastal El Niño index, 1950-2004 against 1950-1999"
    assert recording.names(first.urn, "up") == Counter(
        [
            ("file", "ersst_nino12_monthly.csv"),
            ("task-run", "Cut the series"),
            ("file", "runs/series-1950-2004.csv"),
            ("task-run", "Upload artifact"),
            ("artifact", "series-1950-2004.csv"),
            ("task-run", "Place order"),
            ("order", name),
            ("model-run", name),
            ("dataset", ""),
            ("call", "aregister_item"),
            ("workflow-template", "Coastal El Niño index on IVCAP"),
        ]
    )
    assert recording.names(first.urn, "down") == Counter(
        [
            ("model-run", name),
            *[("dataset", "")] * 2,
            ("task-run", "Register model runs"),
            ("file", "runs/model-runs.csv"),
            ("directory", "runs"),
        ]
    )


def ends(graph: Graph, type_: str, activity: str) -> set[str]:
    """What an activity used, or generated."""
    links = [link for link in graph.relations.values() if link.type == type_]
    if type_ == "used":
        return {str(link.target) for link in links if link.source == activity}
    return {str(link.source) for link in links if link.target == activity}


def test_the_record_of_all_runs_is_what_is_on_the_platforms(recording):
    """By the platforms' own lists: every artifact, order, aspect and item, and what each took and made. It is the last
    test, so that all that was run is in it."""
    runs = recording.journal.runs.recent(100)
    graph = Graph(record for run in runs for record in run_graph(recording.journal, run.id))
    there, before = loop.run(Contents.read()), recording.before

    def of(*types: str) -> set[str]:
        return {node.id for node in graph.nodes.values() if node.type in types}

    assert of("artifact") == there.artifacts.keys()
    for urn, sha256 in there.artifacts.items():
        assert graph.nodes[urn].attributes.get("sha256", sha256) == sha256
    assert of("order") == there.orders.keys()
    for urn, (took, made) in there.orders.items():
        assert (ends(graph, "used", urn) & there.artifacts.keys(), ends(graph, "wasGeneratedBy", urn)) == (took, made)
    assert of("aspect") == there.aspects - before.aspects
    assert of("model-run") == there.model_runs.keys()
    for urn, (took, made) in there.model_runs.items():
        assert (ends(graph, "used", urn), ends(graph, "wasGeneratedBy", urn)) == (took, made)
    assert there.items - before.items <= graph.nodes.keys()
    # What was there before is at most referred to.
    assert of("dataset", "registry-item", "workflow-template") <= there.items

    files = {digest(path.read_bytes()) for path in recording.output.rglob("*") if path.is_file()}
    assert files <= {node.attributes.get("sha256") for node in graph.nodes.values() if node.type == "file"}
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
