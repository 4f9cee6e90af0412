"""`trace`: from a thing to what it came from and what came from it, through all runs: text, JSON, page and picture."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone

import pytest
from checkouts import git

from ivcap_flows import recorded
from ivcap_flows import trace as trace_here
from ivcap_flows.capture import files, recorder, use_journal
from ivcap_flows.cli import trace
from ivcap_flows.errors import InputError
from ivcap_flows.forked import PerProcess
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, faults, relation
from ivcap_flows.provenance.records import Record
from ivcap_flows.sinks import run_graph


def keep(journal, records, name="r"):
    """Put records on record as those of a new run."""
    opened = journal.runs.open_attempt(RunIdentity("f", "/a.py:f", {}, name, name))
    journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    journal.runs.close_attempt(opened.attempt.id, "completed")


WHOLE = {
    "a product comes from the input file and the commit": """
$ trace {product}
artifact upper.csv {product}
├─ made by order cli-upper {order} completed …
│ ├─ used artifact series.csv {series} sha256 …
│ │ └─ made by task-run Upload artifact … completed …
│ │ └─ used file {source} … sha256 …
│ │ └─ has the content of content urn:ivcap-flows:file:sha256:…
│ └─ plan service cli-upper …
└─ also known as dataset upper.csv {dataset}
in flow-run harvest …{harvest} completed …
code harvest … commit {commit}
by ivcap-flows …, embedded-user
… things, … relations
""",
    "a file is known by its content, wherever it lies": """
$ trace {copy}
file {downloaded} …
└─ made by task-run Download artifact …
└─ used artifact upper.csv {product}
└─ made by order cli-upper {order} …
├─ used artifact series.csv {series} …
│ └─ made by task-run Upload artifact …
│ └─ used file {source} …
…
code harvest … commit {commit}
…
""",
    "a handle of Provena is an id like another": """
$ trace {dataset}
dataset upper.csv {dataset}
…
… made by order cli-upper {order} …
…
… used file {source} …
…
code harvest … commit {commit}
…
""",
    "an input leads to the product, its download and its dataset": """
$ trace {source} --down
file {source} …
└─ used by task-run Upload artifact …
└─ made artifact series.csv {series} …
├─ used by order cli-upper {order} …
│ ├─ made artifact upper.csv {product}
│ │ ├─ used by task-run Download artifact …
│ │ │ └─ made file {downloaded} …
│ │ └─ used by task-run Mint dataset …
│ │ └─ made dataset upper.csv {dataset}
│ └─ informed task-run Wait for orders …
└─ has the content of content …
in flow-run harvest …
…
""",
    "a dataset leads to what came from its artifact": """
$ trace {dataset} --down
dataset upper.csv {dataset}
└─ also known as artifact upper.csv {product}
├─ used by task-run Download artifact …
│ └─ made file {downloaded} …
└─ used by task-run Mint dataset …
in flow-run harvest …
…
""",
    "data and what was ordered are one line": """
$ trace {downloaded} --brief
upper.csv ← cli-upper ← series.csv
$ trace {source} --down --brief
series.csv → cli-upper → upper.csv
""",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_run_is_traced(on_record, transcript, world, tmp_path, name):
    """Each thing is one step further, then comes the run with its code, once. What came later is no origin."""
    commit = git(world.flows.parent, "rev-parse", "HEAD")[:12]
    copy = shutil.copy(world.downloaded, tmp_path / "copy.csv")
    places = {"source": world.source, "downloaded": world.downloaded, "copy": copy}
    transcript(on_record, WHOLE[name], commit=commit, **places)


def test_programs_get_records_that_the_rules_allow(on_record, world):
    records = [Record.model_validate(record) for record in on_record("trace", world.made["product"], "--json").json]
    assert faults(records) == []
    assert {world.made["product"], world.made["order"], world.made["series"]} <= {record.id for record in records}
    assert [record.attributes["commit"] for record in records if record.type == "code"]


@pytest.mark.parametrize("options", [[], ["--down"], ["--up", "--down"]])
def test_a_page_is_what_the_trace_holds_here_and_in_a_notebook(on_record, world, tmp_path, options):
    """One file, which loads nothing; `trace` in Python has the same page and records. Each counts the same."""
    page, again = tmp_path / "page.html", tmp_path / "again.html"
    told = on_record("trace", world.downloaded, *options, "--html", page)
    text = page.read_text(encoding="utf-8")
    title = {0: "Lineage of", 1: "What came from", 2: "What is connected with"}[len(options)]
    assert f"<title>{title} upper.csv</title>" in text and not re.search(r"(?:src|href)=|url\(|@import", text)
    [data] = re.findall(r'id="picture">(.*?)</script>', text)
    whole = json.loads(data)[-1]
    records = on_record("trace", world.downloaded, *options, "--json").json
    nodes = {record["id"] for record in records if record["kind"] != "relation"}
    counts = ((len(nodes), "thing"), (len(records) - len(nodes), "relation"))
    size = ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts)
    assert {view["size"] for view in json.loads(data)} == {size} and told.out == f"{page}: {size}\n"
    assert on_record("trace", world.downloaded, *options).out.splitlines()[-1].partition(";")[0] == size
    assert {item["id"] for item in whole["items"] if "id" in item} == nodes
    assert len(whole["relations"]) == len(records) - len(nodes)
    on_record("trace", world.downloaded, *options, "--html", again)
    assert again.read_text(encoding="utf-8") == text

    there = trace_here(world.downloaded, **{option.strip("-"): True for option in options})
    assert there.html == text and f"{size}>" in repr(there)
    [frame] = re.findall(r'srcdoc="([^"]*)"', there._repr_html_())
    assert html.unescape(frame) == text
    artifact = Artifact(urn=world.made["product"], platform="any")
    assert trace_here(artifact).graph.nodes.keys() >= {world.made["series"], world.made["order"]}
    with pytest.raises(InputError, match="knows urn:ivcap:artifact:nothing"):
        trace_here("urn:ivcap:artifact:nothing")


def test_a_trace_is_printed_as_text_to_draw(on_record, world):
    """For Markdown pages; nothing else is printed with it."""
    out = on_record("trace", world.made["product"], "--mermaid").out
    assert out.startswith("flowchart TB\n") and out.endswith("\n") and not out.endswith("\n\n")
    plain = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), out)
    assert all(name in plain for name in ("harvest", "Upload artifact", "upper.csv", "cli-upper", "series.csv"))


def test_a_page_is_opened(on_record, transcript, monkeypatch, tmp_path):
    """In the user's browser, from a file of its own or the one that was named; without a browser it is named."""
    opened = []
    monkeypatch.setattr(trace.webbrowser, "open", lambda address: opened.append(address) or True)
    page = tmp_path / "page.html"
    transcript(on_record, f"$ trace {{product}} --open\n…\n$ trace {{product}} --open --html {page}\n{page}: …")
    assert [address.startswith("file:///") for address in opened] == [True, True]
    assert opened[1] == page.as_uri() and page.exists()
    monkeypatch.setattr(trace.webbrowser, "open", lambda address: False)
    transcript(on_record, "$ trace {product} --open\n…trace.html: …")


def test_an_unknown_file_is_named_by_its_path(on_record, tmp_path):
    """Not by its digest alone, nor is that kept: the command line only reads the journal."""
    # A flow would remember the digest of a file this large and old.
    (tmp_path / "large.bin").write_bytes(bytes(files._CHUNK))
    os.utime(tmp_path / "large.bin", (0, 0))
    said = on_record("trace", tmp_path / "large.bin")
    assert said.status == 2 and str(tmp_path / "large.bin") in said.err


@pytest.mark.catches("files before runs")
def test_a_file_and_a_run_of_one_name_are_told_apart(on_record, tmp_path, monkeypatch):
    """`harvest` is the newest run of that flow, whatever lies in the working directory, and `./harvest` the file. A
    file may be called `2010`, though an id begins or ends so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harvest").write_text("a file that no run has seen")
    for command in ("trace", "verify"):
        assert on_record(command, "harvest").out
    said = on_record("trace", "./harvest")
    assert said.status == 2 and "Nothing is on record of ./harvest" in said.err
    assert "unknown" in on_record("verify", "./harvest").out
    id_ = on_record("show", "harvest", "--json").json["run"]["id"]
    for name in (id_[:2], id_[-3:]):
        (tmp_path / name).write_text("a file that no run has seen")
        assert "Nothing is on record of" in on_record("trace", name).err
        assert on_record("trace", id_).status == 0


def test_a_run_whose_process_ended_before_anything_was_recorded_is_known(ivcap_flows, journal):
    """Its orders are in the journal, which `show` reads."""
    journal.runs.open_attempt(RunIdentity("harvest", "/a.py:f", {}, "r", "r"))
    said = ivcap_flows("trace", "latest")
    assert said.status == 2 and "`ivcap-flows show latest`" in said.err


def test_a_trace_follows_long_chains_and_reads_only_what_is_on_the_way(ivcap_flows, journal):
    """What other runs did with the same code is neither read nor told."""
    code = entity("urn:ivcap-flows:code:c", "code", commit="c" * 40)
    for number in range(1, 61):
        step, before, made = (f"urn:x:{noun}" for noun in (f"step:{number}", f"file:{number - 1}", f"file:{number}"))
        attempt = activity(f"urn:x:attempt:{number}", "attempt")
        records = [
            *(attempt, code, relation("hadPlan", attempt.id, code.id)),
            *(activity(step, "task-run", name=f"step {number}"), relation("wasStartedBy", step, attempt.id)),
            *(entity(before, "file"), relation("used", step, before)),
            *(entity(made, "file"), relation("wasGeneratedBy", made, step)),
        ]
        keep(journal, records, f"r{number}")
    read = {record.id for record in journal.lineages.around(["urn:x:file:5"], "up")}
    assert "urn:x:step:5" in read and "urn:x:step:6" not in read
    out = ivcap_flows("trace", "urn:x:file:5").out
    assert "urn:x:file:0" in out and "urn:x:file:6" not in out
    assert "urn:x:file:0" in ivcap_flows("trace", "urn:x:file:60").out


NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def made(step: str, thing: str, **facts: object) -> list[Record]:
    """A file `out.csv` that a step made at noon."""
    return [
        *(activity(step, "task-run"), entity(thing, "file", path="out.csv", **facts)),
        relation("wasGeneratedBy", thing, step, NOON),
    ]


def derived(made: str, *sources: str) -> list[Record]:
    return [relation("wasDerivedFrom", made, source) for source in sources]


def file(id_: str, path: str) -> Record:
    return entity(id_, "file", path=path)


ORDERED = [
    *(activity("urn:x:mine", "task-run", name="choose region"), activity("urn:ivcap:order:o", "order", name="o")),
    *(file("urn:x:regions", "regions.csv"), entity("urn:x:product", "artifact")),
    *(relation("wasStartedBy", "urn:ivcap:order:o", "urn:x:mine"), relation("used", "urn:x:mine", "urn:x:regions")),
    relation("wasGeneratedBy", "urn:x:product", "urn:ivcap:order:o"),
]
"""A user's own step was given a file, and placed an order."""
BYTES = {"sha256": "ab" * 32, "size": 100}
COPIED = [
    *(entity("urn:x:copy", "file", path="copy.csv", **BYTES), activity("urn:x:plot", "task-run")),
    relation("used", "urn:x:plot", "urn:x:copy", NOON + timedelta(hours=1)),
]
"""A step used a file that nobody is known to have made."""

TRACES = {
    "what a step was given counts for what it started": (
        ORDERED,
        "urn:x:product",
        """
artifact  urn:x:product
└─ made by order  o  urn:ivcap:order:o
   └─ by choose region used file  regions.csv  urn:x:regions
4 things, 3 relations
""",
    ),
    "and what it started is told of what it was given": (
        ORDERED,
        "urn:x:regions --down",
        """
file  regions.csv  urn:x:regions
└─ used by task-run  choose region  urn:x:mine
   └─ started order  o  urn:ivcap:order:o
      └─ made artifact  urn:x:product
4 things, 3 relations
""",
    ),
    "what is met again is not told again": (
        [
            *(file(f"urn:x:{name}", name) for name in ("origin", "root", "a", "b", "end")),
            *(derived("urn:x:root", "urn:x:origin") + derived("urn:x:end", "urn:x:a", "urn:x:b")),
            *(derived("urn:x:a", "urn:x:root") + derived("urn:x:b", "urn:x:root")),
        ],
        "urn:x:end",
        """
file  end  urn:x:end
├─ derived from file  a  urn:x:a
│  └─ derived from file  root  urn:x:root
│     └─ derived from file  origin  urn:x:origin
└─ derived from file  b  urn:x:b
   └─ derived from file  root  urn:x:root  (see above)
5 things, 5 relations
""",
    ),
    "what others made with equal bytes is one line": (
        [record for number in range(10) for record in made(f"urn:x:make:{number}", f"urn:x:out:{number}", **BYTES)],
        "urn:x:out:7",
        f"""
file  out.csv  urn:x:out:7  sha256 {BYTES["sha256"]}
   also made by 9 others, with equal bytes
└─ made by task-run  urn:x:make:7
3 things, 2 relations
""",
    ),
    "what is concluded from equal bytes is told as that": (
        [*COPIED, *made("urn:x:make", "urn:x:out", **BYTES)],
        "urn:x:plot",
        f"""
task-run  urn:x:plot
└─ used file  copy.csv  urn:x:copy  sha256 {BYTES["sha256"]}
   └─ has the content of content  urn:ivcap-flows:file:sha256:{BYTES["sha256"]}
         concluded from equal bytes
      └─ is the content of file  out.csv  urn:x:out  sha256 {BYTES["sha256"]}
         └─ made by task-run  urn:x:make
5 things, 4 relations
""",
    ),
    "and so are others that it may have come from": (
        [*COPIED, *made("urn:x:make:1", "urn:x:out:1", **BYTES), *made("urn:x:make:2", "urn:x:out:2", **BYTES)],
        "urn:x:copy",
        f"""
file  copy.csv  urn:x:copy  sha256 {BYTES["sha256"]}
└─ has the content of content  urn:ivcap-flows:file:sha256:{BYTES["sha256"]}
      concluded from equal bytes; 1 other had the same before
   └─ is the content of file  out.csv  urn:x:out:2  sha256 {BYTES["sha256"]}
      └─ made by task-run  urn:x:make:2
4 things, 3 relations
""",
    ),
    "one line says which of many files": (
        [
            *(file(f"urn:x:{year}", f"/data/{year}/out/summary.csv") for year in (2023, 2024)),
            *(file(f"urn:x:daily:{number}", "/data/daily.csv") for number in range(5)),
            file("urn:x:report", "/data/report.csv"),
            *derived("urn:x:report", "urn:x:2023", "urn:x:2024", *(f"urn:x:daily:{number}" for number in range(5))),
        ],
        "urn:x:report --brief",
        "\nreport.csv ← 2023/out/summary.csv, 2024/out/summary.csv, 5 x daily.csv\n",
    ),
    "and that there is nothing to name": (
        [activity("urn:x:sum", "task-run", name="sum")],
        "urn:x:sum --up --down --brief",
        "\nLineage of sum: no data, and nothing that was ordered\n"
        "What came from sum: no data, and nothing that was ordered\n",
    ),
}
"""What is on record, the words after `trace`, and all that it prints."""


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_as_a_whole(ivcap_flows, journal, name):
    records, words, text = TRACES[name]
    keep(journal, records)
    assert "\n" + ivcap_flows("trace", *words.split()).out == text


def test_a_short_trace_of_a_run_lists_what_it_used_and_made(on_record):
    """Of which nothing comes from what stands next to it."""
    out = on_record("trace", "harvest", "--brief").out
    assert "upper.csv" in out and out.count(", ") > 1 and "←" not in out


def test_each_way_of_a_short_trace_is_the_way_alone(ivcap_flows, journal):
    """What has the same content as what comes from a thing is not where the thing comes from."""
    made, again = (file(f"urn:x:{name}", f"/data/{name}.csv") for name in ("made", "again"))
    records = [activity("urn:x:load", "task-run"), made, again, entity("urn:x:content", "content")]
    records += [relation("specializationOf", each.id, "urn:x:content") for each in (made, again)]
    records += [relation("used", "urn:x:load", "urn:x:made"), relation("wasGeneratedBy", "urn:x:again", "urn:x:load")]
    keep(journal, records)
    assert ivcap_flows("trace", "urn:x:made", "--up", "--down", "--brief").out == "made.csv\nmade.csv → again.csv\n"


def test_a_path_where_nothing_is_any_more_leads_to_what_was_there(ivcap_flows, journal, tmp_path):
    """By its sha256, the newest of those that runs had there."""
    path = str(tmp_path / "gone and 'away'.csv")
    keep(journal, [entity(f"urn:x:{n}", "file", sha256=f"{n}" * 64, path=path) for n in (1, 2)])
    said = ivcap_flows("trace", path)
    assert said.status == 2 and f"`ivcap-flows trace {'2' * 64}`" in said.err
    said = ivcap_flows("trace", f"{path}.csv")
    assert said.status == 2 and "There is no file" in said.err and "any more" not in said.err


def test_a_terminal_shows_short_ids_unless_they_are_to_be_whole(ivcap_flows, transcript, journal, monkeypatch):
    """A file or another program gets them whole."""
    order = "urn:ivcap:order:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    records = [activity(order, "order", name="o"), entity("102.100.100/1", "dataset")]
    keep(journal, [*records, relation("wasGeneratedBy", "102.100.100/1", order)])
    whole = "dataset 102.100.100/1\n└─ made by order o {order}\n2 things, 1 relation"
    transcript(ivcap_flows, f"$ trace 102.100.100/1\n{whole}", order=order)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    transcript(ivcap_flows, f"$ trace 102.100.100/1 --full\n{whole}", order=order)
    short = ivcap_flows("trace", "102.100.100/1").out
    assert "order:…c3d2e1f0" in short and order not in short and "102.100.100/1" in short


def test_a_run_whose_process_is_gone_is_lost(own_record, journal):
    """As `show`, `runs` and exports say, before anyone has written it down; what it was at is lost with it."""
    [run] = own_record("runs", "--flow", "interrupted", "--json").json
    [attempt] = journal.runs.attempts(run["id"])
    name, began = flows_urn("attempt", attempt.id), flows_urn("run", run["id"])
    records = [
        activity(began, "flow-run", attempt.started_at, name="interrupted"),
        activity(name, "attempt", attempt.started_at, name="interrupted", outcome="running"),
        relation("wasStartedBy", name, began),
        activity(at := f"{name}:at", "call", attempt.started_at, name="what it was at", outcome="running"),
        relation("wasStartedBy", at, name),
    ]
    journal.facts.append([Fact(record, run["id"], attempt.id) for record in records])
    out = own_record("trace", run["id"]).out
    assert run["outcome"] == "lost" and "lost" in out and "running" not in out
    nodes, over = own_record("trace", run["id"], "--json").json, ("flow-run", "attempt", "call")
    told = {node["type"]: node["attributes"]["outcome"] for node in nodes if node["type"] in over}
    assert told == dict.fromkeys(over, "lost")
    # The next attempt of the run writes down how this one ended, but not what it was at.
    for _ in ("now", "when another attempt has completed the run"):
        for command in ("trace", "export"):
            said = own_record(command, run["id"]).out
            assert "running" not in said and "lost" in said
        graph = run_graph(journal, run["id"])
        assert graph.nodes[at].attributes["outcome"] == graph.nodes[name].attributes["outcome"] == "lost"
        journal.runs.reap()
        again = activity(began, "flow-run", attempt.started_at, attempt.started_at, outcome="completed")
        journal.facts.append([Fact(again, run["id"])])


def test_a_run_that_goes_on_has_no_end_of_an_earlier_attempt(ivcap_flows, journal):
    """A trace and an export say that it is running, also if it is only continued later."""
    identity = RunIdentity("icen", "/icen.py:icen", {}, "goes-on", "goes-on")
    first = journal.runs.open_attempt(identity)
    urn, run = flows_urn("run", first.run.id), first.run.id
    journal.runs.close_attempt(first.attempt.id, "failed")
    [ended] = journal.runs.attempts(run)
    over = activity(urn, "flow-run", ended.started_at, ended.ended_at, name="icen", outcome="failed")
    journal.facts.append([Fact(over, run)])
    assert run_graph(journal, run).nodes[urn].ended is not None
    again = journal.runs.open_attempt(identity).attempt
    attempt = flows_urn("attempt", again.id)
    begun = [activity(attempt, "attempt", again.started_at, outcome="running"), relation("wasStartedBy", attempt, urn)]
    journal.facts.append([Fact(each, run, again.id) for each in begun])
    nodes = [run_graph(journal, run).nodes[urn], *map(Record.model_validate, ivcap_flows("trace", run, "--json").json)]
    told = [(node.ended, node.attributes["outcome"]) for node in nodes if node.id == urn]
    assert told == [(None, "running")] * 2


def record_call(journal_file, call, path):
    """Make a recorded call outside of any flow."""
    with Journal.open(f"sqlite:///{journal_file}") as journal, use_journal(journal):
        call(path)
        # git may take longer than the call.
        for thread in threading.enumerate():
            if thread.name == "ivcap-flows-code":
                thread.join()
        assert recorder().flush()


@recorded
def fill(folder):
    """Make all files of a folder, or of a store."""
    folder.mkdir()
    for name in (".zgroup", "0.0") if folder.suffix == ".zarr" else ("a.csv", "b.csv"):
        (folder / name).write_text('{"zarr_format": 2}' if name == ".zgroup" else f"{folder} {name}")
    return folder


@pytest.mark.parametrize("name", ["made", "made.zarr"])
def test_a_trace_starts_from_a_folder_or_a_store(ivcap_flows, journal_file, tmp_path, name):
    """By its path as the call left it, and by its content wherever it is copied to."""
    record_call(journal_file, fill, tmp_path / name)
    out = ivcap_flows("trace", tmp_path / name).out
    assert out.startswith(f"directory  {tmp_path / name}") and "made by call  fill" in out
    shutil.copytree(tmp_path / name, tmp_path / f"copy of {name}")
    assert "call  fill" in ivcap_flows("trace", tmp_path / f"copy of {name}").out
    (tmp_path / name / "more.csv").write_text("of nobody")
    said = ivcap_flows("trace", tmp_path / name)
    assert said.status == 2 and f"Nothing is on record of {tmp_path / name}" in said.err
    assert f"`ivcap-flows verify {tmp_path / name}` looks up each file in it." in said.err


@recorded
def write(path):
    path.write_text("more bytes than may be equal by chance")
    return path


def test_a_touched_file_is_the_last_one_with_its_bytes_at_its_path(ivcap_flows, journal_file, tmp_path, monkeypatch):
    """As another process finds it, which does not know of this one's writings. Equal bytes elsewhere are another's."""
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in paths:
        record_call(journal_file, write, path)
    for path in paths:
        os.utime(path, (0, 0))
    monkeypatch.setattr(files, "_read", PerProcess(files._Read))
    for path in paths:
        out = ivcap_flows("trace", path).out
        assert out.startswith(f"file  {path}") and "made by call  write" in out, out


@recorded
def append(path):
    """Change a file by a program that nobody sees read or write."""
    subprocess.run(["sh", "-c", 'echo more >> "$0"', str(path)], check=True)


@pytest.mark.catches("unknowns untold")
def test_a_trace_says_what_the_record_does_not_know(ivcap_flows, journal_file, tmp_path):
    """Below the call whose files it is about, as the page does."""
    path = tmp_path / "log.txt"
    path.write_text("a line of more than sixteen bytes\n")
    record_call(journal_file, append, path)
    lines = [line.strip(" │") for line in ivcap_flows("trace", path).out.splitlines()]
    at = next(number for number, line in enumerate(lines) if "call  append" in line)
    assert lines[at + 1].startswith(f"{path}: it is not known whether it was read before it was overwritten"), lines
