"""What a picture shows, what is in its page, and its text for Mermaid."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from importlib.resources import files
from typing import get_args

import pytest
from surveys import make_survey

from ivcap_flows.journal import Outcome
from ivcap_flows.plain_text import CONTROL_CHARACTERS, visible
from ivcap_flows.provenance import RULES, Graph, Record, activity, agent, entity, relation
from ivcap_flows.provenance.html import page
from ivcap_flows.provenance.mermaid import mermaid
from ivcap_flows.provenance.picture import OUTCOMES, as_opened, outcome_of, picture
from ivcap_flows.provenance.rules import WORDS

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"] --> evil["x',
    '%%{init: {"theme": "dark"}}%%',
    "- list `**b**` __i__",
    "#quot; &lt;b&gt; &amp; &#60;",
    "a\\nb\\",
    'click n0 "javascript:alert(1)"',
    "<!-- <![CDATA[",
    "\u202egnp.exe \u2028 \ud800",
]


def test_what_an_activity_started_is_in_it_and_data_is_where_its_steps_meet():
    """Orders are in their tasks, and tasks in their attempt.

    A product is between its maker and its reader. Inputs and traced things are outside.
    """
    items = picture(make_survey(2), ["out"]).items
    parents = {id_: items[id_].parent for id_ in ("attempt", "place:0", "order:0", "product:0", "in", "out", "me")}
    assert parents == {
        "attempt": "run",
        "place:0": "attempt",
        "order:0": "place:0",
        "product:0": "attempt",
        "in": None,
        "out": None,
        "me": "run",
    }


def test_many_alike_are_a_group():
    """Tasks of one name at one stage form a group, and so does what they pass on.

    The group shows its gravest outcome.
    """
    shown = picture(make_survey(60), ["out"])
    alike = [item for item in shown.items.values() if item.record is None]
    assert [(item.title, item.note, item.within) for item in alike] == [
        ("Place order", "60 task runs", "failed"),
        ("season.csv", "54 artifacts", None),
        ("Download artifact", "54 task runs", None),
        ("files", "54 files", None),
    ]
    assert not any(item.open for item in alike)
    # The run's order of the same failed service, told by its task alone, does not speak for the run.
    assert (shown.items["run"].outcome, shown.items["run"].within) == ("completed", "failed")


def test_steps_of_different_stages_are_not_alike():
    """A task that uses the result of another task of its name is not in its group."""
    records = [entity("e0", "file", path="0")]
    for number in range(6):
        step = activity(f"s{number}", "task-run", name="step")
        made = entity(f"e{number + 1}", "file", path=str(number + 1))
        records += [step, made, relation("used", step.id, f"e{number}"), relation("wasGeneratedBy", made.id, step.id)]
    assert all(item.record is not None for item in picture(Graph(records)).items.values())


def test_what_nesting_tells_is_not_drawn_again():
    """No link is drawn from starter to started, nor to a task if its order has the same link."""
    shown = picture(make_survey(2), ["out"])
    drawn = {(link.origin, link.result, link.type) for link in shown.links}
    assert not any(name == "wasStartedBy" for *_, name in drawn)
    assert ("in", "order:0", "used") in drawn and ("in", "place:0", "used") not in drawn
    assert len(shown.relations) > len(drawn)


@pytest.mark.parametrize("orders", [1, 20, 400])
def test_a_picture_begins_with_little(orders):
    """At most 200 things are shown at first, however large the graph is."""
    shown = as_opened(picture(make_survey(orders), ["out"]))
    assert len(shown.items) <= 200 and "out" in shown.items and shown.links


def neighbours(others: int) -> Graph:
    """A run with n others that used what it made and share its input, code and user.

    Its tasks pass tables and arrays, and one had three tries.
    """
    records = [
        entity("in", "file", path="/data/stations.csv", size=5508),
        entity("code", "code", name="stations", commit="0123456789abcdef"),
        agent("me", "user", name="me"),
    ]
    for number in range(others):
        records += [*_stations(f"other{number}", NOON - timedelta(days=others - number), f"amber-fox-{number}")]
    columns = [{"name": name, "type": "float64"} for name in ("year", "temperature", "rain")]
    variables = [
        {"name": "anomaly", "dimensions": ["time", "place"], "shape": [20, 5], "type": "float64"},
        {"name": "time", "dimensions": ["time"], "shape": [20], "type": "int64"},
    ]
    records += [
        *_stations("own", NOON, "tidy-owl"),
        entity("table", "frame", library="pandas", rows=100, columns=columns),
        relation("wasGeneratedBy", "table", "own:load", role="result"),
        activity("own:clean", "task-run", NOON, name="clean", run_name="clean perth", outcome="completed"),
        relation("wasStartedBy", "own:clean", "own:attempt"),
        relation("used", "own:clean", "table", role="weather"),
        entity("grid", "array", library="xarray", variables=variables),
        relation("wasGeneratedBy", "grid", "own:clean", role="result"),
        entity("fitted", "array", library="numpy", shape=[2, 3], data_type="float64"),
    ]
    for number in (1, 2, 3):
        fit = "own:fit" if number == 1 else f"own:fit.{number}"
        tried = {"try": number} if number > 1 else {}
        outcome = "completed" if number == 3 else "retried"
        records += [
            activity(fit, "task-run", NOON, name="fit", run_name="fit-3f2", outcome=outcome, **tried),
            relation("wasStartedBy", fit, "own:attempt"),
            relation("used", fit, "grid", role="grid"),
        ]
    records += [
        relation("wasGeneratedBy", "fitted", "own:fit.3", role="result"),
        relation("wasInformedBy", "own:fit.2", "own:fit"),
        relation("wasInformedBy", "own:fit.3", "own:fit.2"),
    ]
    if others:
        records.append(relation("used", "own:load", "other0:report", role="earlier"))
    return Graph(records)


def _stations(run: str, begun: datetime, name: str) -> Iterator[Record]:
    """A run that loads the stations and reports on them."""
    load, write = f"{run}:load", f"{run}:write"
    yield activity(run, "flow-run", begun, begun + timedelta(seconds=9), name="stations", outcome="completed")
    yield activity(
        f"{run}:attempt", "attempt", begun, name="stations", flow_run_name=name, number=1, outcome="completed"
    )
    yield relation("wasStartedBy", f"{run}:attempt", run)
    yield relation("hadPlan", f"{run}:attempt", "code")
    yield relation("wasAssociatedWith", f"{run}:attempt", "me")
    yield activity(load, "task-run", begun, name="load", run_name="load-1a2", outcome="completed")
    yield activity(write, "task-run", begun, name="write", run_name="write-1a2", outcome="completed")
    yield entity(f"{run}:places", "file", path=f"/data/{run}/places.csv")
    yield entity(f"{run}:report", "file", path=f"/data/{run}/report.md", size=1200, sha256="ab" * 32)
    yield relation("wasStartedBy", load, f"{run}:attempt")
    yield relation("wasStartedBy", write, f"{run}:attempt")
    yield relation("wasInformedBy", write, load)
    yield relation("used", load, "in")
    yield relation("used", load, f"{run}:places")
    yield relation("wasGeneratedBy", f"{run}:report", write)


def called(graph: Graph, *starts: str) -> list[str]:
    """The names and notes of what a page begins with, with the outcomes of what ended otherwise than well."""
    items = as_opened(picture(graph, starts)).items.values()
    ended = [f", {item.outcome}" if item.outcome not in (None, "completed") else "" for item in items]
    return [f"{item.title}, {item.note}{end}" for item, end in zip(items, ended, strict=True)]


def test_things_are_called_as_the_user_knows_them():
    """Tables and arrays by parameter, or else "result", with size, columns, variables or type. Task runs by Prefect's
    names, and each of several tries by its number; a group of them by their task."""
    assert {
        "weather, frame 100 x 3 · year, temperature, rain",
        "grid, array 20 x 5 · anomaly",
        "result, array 2 x 3 · float64",
        "load-1a2, task run",
        "clean perth, task run",
        "fit-3f2, task run · try 1 of 3, retried",
        "fit-3f2, task run · try 2 of 3, retried",
        "fit-3f2, task run · try 3 of 3",
    } <= set(called(neighbours(2), "own"))
    runs = [activity(f"t{n}", "task-run", name="clean", run_name=f"station {n}") for n in range(5)]
    started = [relation("wasStartedBy", each.id, "run") for each in runs]
    graph = Graph([activity("run", "flow-run", name="flow"), *runs, *started])
    assert any(name.startswith("clean, 5 task runs") for name in called(graph, "run"))
    item = picture(graph, ["run"]).items["t3"]
    assert (item.title, item.note) == ("station 3", "task run · clean")


@pytest.mark.parametrize("others", [3, 6])
def test_each_other_run_is_one_folded_thing(others):
    """On the page of a run; its own things and inputs are open. On the page of a file, all of the way to it is."""
    names = [name.partition(" · 9 s")[0] for name in called(neighbours(others), "own")]
    assert {f"stations, flow run · amber-fox-{number}" for number in range(others)} <= set(names)
    # Of the others' things only the report that this run took is seen.
    files_ = sorted(name.partition(",")[0] for name in names if ", file" in name)
    assert files_ == ["places.csv", "report.md", "report.md", "stations.csv"]
    names = called(neighbours(2), "other0:report")
    assert sum(name.startswith("places.csv, file") for name in names) == 3


def test_every_word_of_the_records_is_known_to_the_picture():
    """Each relation has its words, and each outcome a sign and a colour in both themes."""
    folder = files("ivcap_flows.provenance") / "page"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "draw.js"))
    assert set(WORDS) == set(RULES)
    assert set(get_args(Outcome)) <= set(OUTCOMES)
    for outcome in OUTCOMES:
        assert len(re.findall(rf"--{outcome}: #", style)) == 2, outcome
        assert re.search(rf"^  {outcome}: \[", script, re.MULTILINE), outcome
    assert outcome_of(activity("o", "order", status="executing")) == "running"


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours by WCAG 2.2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_a_page_can_be_read_in_either_theme(scheme):
    """Texts have a contrast of 4.5, and names one of 7; signs have one of 3, and each its own form (WCAG)."""
    folder = files("ivcap_flows.provenance") / "page"
    style = (folder / "page.css").read_text(encoding="utf-8").split("(prefers-color-scheme: dark)")[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", style.partition("}")[0]))
    grounds = [colours[name] for name in ("activity", "entity", "agent", "card", "frame")]
    assert min(contrast(colours["ink"], ground) for ground in grounds) >= 7
    assert min(contrast(colours["muted"], ground) for ground in (*grounds, colours["paper"])) >= 4.5
    assert min(contrast(colours[outcome], colours["activity"]) for outcome in OUTCOMES) >= 3
    assert contrast(colours["hit-line"], colours["hit"]) >= 3
    signs = re.findall(r"^  (\w+): (\[.*\])", (folder / "draw.js").read_text(encoding="utf-8"), re.MULTILINE)
    forms = [form for word, form in signs if word in OUTCOMES]
    assert len(forms) == len(OUTCOMES) == len(set(forms))


@pytest.mark.long
def test_two_thousand_nodes_are_written_in_two_seconds():
    """2,000 nodes take less than two seconds of processor time, and give the same page each time."""
    graph = make_survey(430)
    assert len(graph.nodes) > 2000
    begun = time.process_time()
    first = page(graph, ["out"])
    assert time.process_time() - begun < 2
    assert first == page(Graph(graph.records), ["out"])


def test_dagre_is_as_published_and_comes_with_its_licence():
    """The library in each page is version 3.1.3 of @dagrejs/dagre, byte for byte, after its licence."""
    folder = files("ivcap_flows.provenance") / "page"
    library, licence = ((folder / name).read_bytes() for name in ("dagre.min.js", "dagre.min.js.LEGAL.txt"))
    assert sha256(library).hexdigest() == "54a503e346f93ca0bb10abe7999587e037262935687aca45eb4e4b0f64bbb578"
    assert b'"3.1.3"' in library
    assert b"Permission is hereby granted" in licence
    assert licence + library in page(Graph([])).encode()


def nasty() -> Graph:
    """Names with every special character, as those of things and of groups."""
    records = []
    for number, name in enumerate(NASTY):
        records += [
            activity(f"a{number}", "call", name=f"call {name}"),
            activity(f"b{number}", "task-run", name=name, cause=name),
            relation("wasStartedBy", f"b{number}", f"a{number}"),
            entity(f"e{number}", "file", name=name, note={name: [name]}),
            relation("used", f"b{number}", f"e{number}", role=name),
        ]
    return Graph(records)


def test_no_name_is_markup_in_a_page():
    """The page has only its own tags. The names are unchanged in its data, but for what would turn them around."""
    text = page(nasty(), ["e0"], title=NASTY[0])
    assert len(re.findall(r"<script", text)) == 2 == len(re.findall(r"</script", text))
    assert "<img" not in text and "<!--" not in text
    text.encode("utf-8")
    [data] = re.findall(r'<script type="application/json" id="picture">(.*?)</script>', text)
    titles = [item["title"] for item in json.loads(data)[0]["items"] if item["kind"] == "entity"]
    assert titles == [visible(" ".join(name.split())) for name in NASTY] and "\\u202e" not in text
    assert titles[-1].startswith("\ufffdgnp.exe")


def test_no_name_is_markup_in_mermaid():
    """Names contain only letters, digits, blanks, dashes and numbered characters; none turns the text around."""
    lines = mermaid(nasty(), ["e0"]).splitlines()
    label = r'"(?:[^\W_]|[ \-·]|#\d+;|<br/>)*"'
    node = rf"n\d+(?:\[{label}\]|\(\[{label}\]\)|\{{\{{{label}\}}\}})"
    known = (
        rf"flowchart TB|subgraph n\d+\[{label}\]|end|{node}|n\d+ (?:-->|-\.->|-\.-) n\d+|classDef .*|class [n\d,]+ \w+"
    )
    assert [line for line in lines if not re.fullmatch(known, line.strip())] == []
    assert not {
        number for line in lines for number in re.findall(r"#(\d+);", line) if int(number) in CONTROL_CHARACTERS
    }
    assert sum(line.strip() == "end" for line in lines) == sum("subgraph" in line for line in lines) == len(NASTY)


def test_mermaid_folds_what_is_many():
    """The flowchart has at most 500 links, the limit of sites that draw Mermaid."""
    text = mermaid(make_survey(400), ["out"])
    assert "400 task runs" in text and text.count("-->") < 30
    assert "Season 3" in mermaid(make_survey(5), ["out"])
