"""What the page of a trace begins with: data and what was ordered, each joined to its nearest origins."""

from __future__ import annotations

from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.data_view import data_view

SHA = "0" * 64


def steps(graph: Graph) -> set[tuple[str, str, str]]:
    return {(link.source or "", link.type, link.target or "") for link in graph.relations.values()}


def test_tasks_code_and_people_are_left_out(make_survey):
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
    """And not the other way round."""
    records = [
        entity("file", "file", path="file", sha256=SHA),
        entity("artifact", "artifact", sha256=SHA),
        activity("order", "order", name="order"),
        relation("wasGeneratedBy", "artifact", "order"),
    ]
    seen = data_view(Graph(records))
    assert steps(seen) == {("file", "wasDerivedFrom", "artifact"), ("artifact", "wasGeneratedBy", "order")}


def test_what_was_traced_stays():
    """A run has no data of its own; it is shown all the same."""
    graph = Graph([activity("run", "flow-run", name="run"), entity("code", "code", name="code")])
    assert data_view(graph, ["run"]).nodes.keys() == {"run"}
