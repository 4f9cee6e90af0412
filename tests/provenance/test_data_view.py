"""What the page of a trace begins with: data and what was ordered, each joined to its nearest origins."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from surveys import make_survey

from ivcap_flows.identity import file_urn
from ivcap_flows.provenance import Graph, activity, agent, entity, relation
from ivcap_flows.provenance.data_view import data_view, first_view

SHA = "0" * 64
NOON, MINUTE = datetime(2026, 3, 1, 12, tzinfo=timezone.utc), timedelta(minutes=1)


def steps(graph: Graph) -> set[tuple[str, str, str]]:
    return {(link.source or "", link.type, link.target or "") for link in graph.relations.values()}


def test_tasks_code_and_people_are_left_out():
    """A file comes from the artifact that its task downloaded, a joined table from its parts."""
    whole = make_survey(2)
    seen = data_view(whole, ["out"])
    assert seen.nodes.keys() == {"in", "out", *(f"{name}:{n}" for name in ("order", "product", "file") for n in (0, 1))}
    of_each = {
        step
        for n in (0, 1)
        for step in (
            ("out", "wasDerivedFrom", f"file:{n}"),
            (f"file:{n}", "wasDerivedFrom", f"product:{n}"),
            (f"product:{n}", "wasGeneratedBy", f"order:{n}"),
            (f"order:{n}", "used", "in"),
        )
    }
    assert steps(seen) == of_each


def test_a_way_that_others_say_is_left_out():
    """A report that was made of a table and of what the table was made of comes from the table."""
    records = [
        *(entity(name, "file", path=name) for name in ("raw", "clean", "report")),
        *(activity(name, "task-run", name=name) for name in ("tidy", "write")),
        relation("used", "tidy", "raw"),
        relation("wasGeneratedBy", "clean", "tidy"),
        relation("wasInformedBy", "write", "tidy"),
        relation("used", "write", "clean"),
        relation("wasGeneratedBy", "report", "write"),
    ]
    assert steps(data_view(Graph(records))) == {
        ("clean", "wasDerivedFrom", "raw"),
        ("report", "wasDerivedFrom", "clean"),
    }


def test_a_file_that_nothing_made_comes_from_what_has_its_content():
    """And not the other way round. The line says that it is concluded."""
    records = [
        entity("file", "file", path="file", sha256=SHA),
        entity("artifact", "artifact", sha256=SHA),
        activity("order", "order", name="order"),
        relation("wasGeneratedBy", "artifact", "order"),
    ]
    seen = data_view(Graph(records))
    assert steps(seen) == {("file", "specializationOf", "artifact"), ("artifact", "wasGeneratedBy", "order")}


def test_what_was_made_of_a_file_is_no_origin_of_it():
    """Although it has the content of the file, which nothing is known to have made. A later product is none either."""
    records = [
        entity("file", "file", path="file", sha256=SHA),
        activity("upload", "task-run", NOON, name="upload"),
        relation("used", "upload", "file", NOON),
        entity("artifact", "artifact", sha256=SHA),
        relation("wasGeneratedBy", "artifact", "upload", NOON + MINUTE),
        activity("again", "task-run", NOON + MINUTE, name="again"),
        entity("copy", "file", path="copy", sha256=SHA),
        relation("wasGeneratedBy", "copy", "again", NOON + 2 * MINUTE),
    ]
    assert steps(data_view(Graph(records))) == {("artifact", "wasDerivedFrom", "file")}


def test_a_use_of_a_content_leads_to_what_was_last_made_with_it():
    """As where a handle names a file that is not at its path."""
    records = [
        entity("file", "file", path="file", sha256=SHA),
        activity("write", "task-run", NOON, name="write"),
        relation("wasGeneratedBy", "file", "write", NOON),
        entity(file_urn(SHA), "content", sha256=SHA),
        activity("read", "task-run", NOON + MINUTE, name="read"),
        relation("used", "read", file_urn(SHA), NOON + MINUTE),
        entity("report", "file", path="report"),
        relation("wasGeneratedBy", "report", "read", NOON + MINUTE),
    ]
    assert steps(data_view(Graph(records))) == {("report", "wasDerivedFrom", "file")}


def test_a_page_without_data_begins_with_the_work():
    """Who did it, and how, comes by the button; a page of code and people alone has only the whole."""
    work = [
        *(activity(name, kind, name=name) for name, kind in (("run", "flow-run"), ("load", "task-run"))),
        relation("wasStartedBy", "load", "run"),
    ]
    behind = [
        *(agent("me", "user"), entity("code", "code", name="code")),
        *(relation("hadPlan", "run", "code"), relation("wasAssociatedWith", "run", "me")),
    ]
    first = first_view(Graph([*work, *behind]), ["run"])
    assert first is not None
    assert (first.nodes.keys(), steps(first)) == ({"run", "load"}, {("load", "wasStartedBy", "run")})
    assert first_view(Graph(work), ["run"]) is None
    assert first_view(Graph([work[0], *behind]), ["code"]) is None


def test_what_was_traced_stays():
    """A run has no data of its own; it is shown all the same."""
    graph = Graph([activity("run", "flow-run", name="run"), entity("code", "code", name="code")])
    assert data_view(graph, ["run"]).nodes.keys() == {"run"}
