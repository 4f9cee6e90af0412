"""`trace` as a picture: a page, a Mermaid flowchart."""

import json
import re

import pytest

from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation

PRODUCT, SOURCE = "urn:ivcap:artifact:upper", "urn:ivcap-flows:file:sha256:" + "ab" * 32
NAMES = ("harvest", "Upload artifact", "upper.csv", "cli-upper", "series.csv")


@pytest.fixture
def drawn(ivcap_flows, journal_file):
    """The command line on a journal with a file that was uploaded, and what an order made of it."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("harvest", "/flows.py:harvest", {}, "r", "r"))
        records = [
            activity("urn:x:run", "flow-run", opened.run.created_at, name="harvest", outcome="completed"),
            activity("urn:x:upload", "task-run", opened.run.created_at, name="Upload artifact", outcome="completed"),
            relation("wasStartedBy", "urn:x:upload", "urn:x:run"),
            entity(SOURCE, "file", path="/data/series.csv", sha256="ab" * 32),
            relation("used", "urn:x:upload", SOURCE, role="source"),
            entity("urn:ivcap:artifact:series", "artifact", name="series"),
            relation("wasGeneratedBy", "urn:ivcap:artifact:series", "urn:x:upload"),
            activity("urn:ivcap:order:1", "order", name="Upper", service_name="cli-upper", outcome="completed"),
            relation("wasStartedBy", "urn:ivcap:order:1", "urn:x:run"),
            relation("used", "urn:ivcap:order:1", "urn:ivcap:artifact:series"),
            entity(PRODUCT, "artifact", name="upper.csv"),
            relation("wasGeneratedBy", PRODUCT, "urn:ivcap:order:1"),
        ]
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    return ivcap_flows


def test_a_trace_is_written_as_a_page(drawn, tmp_path):
    """One file with the whole lineage, which says how much it holds; the same again is the same page."""
    told = drawn("trace", PRODUCT, "--html", tmp_path / "page.html")
    assert told.status == 0 and re.match(
        rf"{re.escape(str(tmp_path))}/page.html: \d+ things, \d+ relations\n", told.out
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>Lineage of upper.csv</title>" in text
    assert not re.search(r"(?:src|href)=|url\(|@import", text)
    [data] = re.findall(r'id="picture">(.*?)</script>', text)
    first, shown = json.loads(data)
    assert [item["title"] for item in first["items"]] == ["series.csv", "series", "Upper", "upper.csv"]
    records = drawn("trace", PRODUCT, "--json").json
    assert {item["id"] for item in shown["items"] if "id" in item} == {
        record["id"] for record in records if record["kind"] != "relation"
    }
    assert len(shown["relations"]) == sum(record["kind"] == "relation" for record in records)
    assert [shown["items"][start]["id"] for start in shown["starts"]] == [PRODUCT]
    drawn("trace", PRODUCT, "--html", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("way", "title"), [("--down", "What came from series.csv"), ("--up", "Lineage of series.csv")])
def test_the_page_says_which_way_it_goes(drawn, tmp_path, way, title):
    """Up or down, in its title."""
    drawn("trace", SOURCE, way, "--html", tmp_path / "page.html")
    assert f"<title>{title}</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_trace_is_printed_as_text_to_draw(drawn):
    """For Markdown pages; nothing else is printed with it."""
    out = drawn("trace", PRODUCT, "--mermaid").out
    assert out.startswith("flowchart TB\n") and out.endswith("\n") and not out.endswith("\n\n")
    plain = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), out)
    assert all(name in plain for name in NAMES)


@pytest.mark.parametrize("options", [["--mermaid", "--brief"], ["--html", "x.html", "--json"]])
def test_a_trace_is_told_in_one_way(drawn, options):
    """Two at once are wrong use."""
    said = drawn("trace", PRODUCT, *options)
    assert said.status == 2 and "Give only one of" in said.err


def test_a_page_that_cannot_be_written_is_named(drawn, tmp_path):
    """The error names the file."""
    said = drawn("trace", PRODUCT, "--html", tmp_path / "no" / "page.html")
    assert said.status == 2 and str(tmp_path / "no" / "page.html") in said.err
