"""`trace`: from a thing to what it came from and what came from it, through all runs."""

import html
import os
import re
import shutil
import subprocess
import threading

import pytest
from checkouts import git
from mutants import mutate

from ivcap_flows import recorded
from ivcap_flows import trace as trace_here
from ivcap_flows.capture import files, recorder, use_journal
from ivcap_flows.cli import trace
from ivcap_flows.cli.output import console
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, faults, relation
from ivcap_flows.provenance.records import Record


def depth_of(out, text):
    """How deep in the tree the first line with a text stands."""
    line = next(line for line in out.splitlines() if text in line)
    return len(line) - len(line.lstrip(" │├└─"))


def test_a_product_is_traced_to_the_input_file_and_the_commit(on_record, world):
    """Product, order, artifact, upload, file: each one step further; then the run with its code, once."""
    said = on_record("trace", world.made["product"])
    assert said.status == 0
    chain = [world.made["product"], world.made["order"], world.made["series"], "Upload artifact", str(world.source)]
    assert [depth_of(said.out, text) for text in chain] == sorted({depth_of(said.out, text) for text in chain})
    lines = said.out.splitlines()
    assert lines[0].startswith("artifact  upper.csv")
    assert sum("flow-run" in line for line in lines) == 1
    code = next(line for line in lines if "commit" in line)
    assert git(world.flows.parent, "rev-parse", "HEAD").startswith(code.split("commit ")[1].split()[0])
    assert lines.index(code) == next(n for n, line in enumerate(lines) if line.startswith("in flow-run")) + 1


def test_a_trace_says_only_what_is_so(on_record, world):
    """A dataset made of the product is another name of it and none of its origins; the download came later."""
    out = on_record("trace", world.made["product"]).out
    assert f"also known as dataset  upper.csv  {world.made['dataset']}" in out
    assert "Mint dataset" not in out and "Download artifact" not in out
    assert "Place order" not in out and "Wait for orders" not in out
    assert out.count(world.made["order"]) == 1


@pytest.mark.parametrize("name", ["path", "copied file", "handle"])
def test_a_trace_starts_from_a_file_or_a_handle(on_record, world, name, tmp_path):
    """A file is known by its content, wherever it lies; a Provena handle is an id like another."""
    start = {"path": world.downloaded, "copied file": tmp_path / "copy.csv", "handle": world.made["dataset"]}[name]
    if name == "copied file":
        shutil.copy(world.downloaded, start)
    out = on_record("trace", start).out
    assert depth_of(out, str(world.source)) > depth_of(out, world.made["order"]) > 0
    assert "commit" in out


def test_a_trace_down_leads_to_what_was_made(on_record, world):
    """From the input file over the artifact and the order to the product, its download and its dataset."""
    out = on_record("trace", world.source, "--down").out
    chain = ["Upload artifact", world.made["series"], world.made["order"], world.made["product"], str(world.downloaded)]
    depths = [depth_of(out, text) for text in chain]
    assert depths == sorted(depths) and depths[0] > 0
    assert world.made["dataset"] in out
    assert on_record("trace", world.made["dataset"], "--down").out.count("\n") < out.count("\n")


def test_a_trace_as_json_is_a_valid_graph(on_record, world):
    """Every record of the lineage, relations with both ends."""
    said = on_record("trace", world.made["product"], "--json").json
    records = [Record.model_validate(record) for record in said]
    assert faults(records) == []
    ids = {record.id for record in records}
    assert {world.made["product"], world.made["order"], world.made["series"]} <= ids
    assert [r.attributes["commit"] for r in records if r.type == "code"]


@pytest.mark.parametrize("options", [[], ["--down"], ["--up", "--down"]])
def test_a_notebook_shows_the_same(on_record, world, tmp_path, options):
    """`trace` of a handle or a path has the records and the page of the command, in a frame of its own."""
    page = tmp_path / "page.html"
    assert on_record("trace", world.downloaded, *options, "--html", page).status == 0
    there = trace_here(world.downloaded, **{option.strip("-"): True for option in options})
    assert there.html == page.read_text(encoding="utf-8")
    assert repr(there).startswith("<") and f"{len(there.graph.nodes)} things" in repr(there)
    [frame] = re.findall(r'srcdoc="([^"]*)"', there._repr_html_())
    assert html.unescape(frame) == there.html
    artifact = Artifact(urn=world.made["product"], platform="any")
    assert trace_here(artifact).graph.nodes.keys() >= {world.made["series"], world.made["order"]}
    with pytest.raises(InputError, match="knows urn:ivcap:artifact:nothing"):
        trace_here("urn:ivcap:artifact:nothing")


@pytest.mark.parametrize("options", [[], ["--up"], ["--down"]])
def test_an_unknown_thing_is_wrong_use(on_record, options):
    """The error names it and the journal."""
    said = on_record("trace", "urn:ivcap:artifact:nothing", *options)
    assert said.status == 2 and "knows urn:ivcap:artifact:nothing" in said.err


def test_an_unknown_file_is_named_as_it_was_given(on_record, tmp_path):
    """Not by the digest alone."""
    (tmp_path / "new.csv").write_text("never seen")
    said = on_record("trace", tmp_path / "new.csv")
    assert said.status == 2 and str(tmp_path / "new.csv") in said.err


def test_the_digest_of_a_traced_file_is_not_kept(on_record, tmp_path):
    """A large file's, which a flow would remember: the command line only reads the journal."""
    (tmp_path / "large.bin").write_bytes(bytes(files._CHUNK))
    os.utime(tmp_path / "large.bin", (0, 0))
    assert on_record("trace", tmp_path / "large.bin").status == 2


def chained(journal, length):
    """Runs that each take the file of the one before with one code; returns the last file."""
    made = "urn:x:file:0"
    code = entity("urn:ivcap-flows:code:c", "code", commit="c" * 40)
    for number in range(1, length + 1):
        identity = RunIdentity("chained", "/a.py:f", {"n": number}, f"r{number}", f"r{number}")
        opened = journal.runs.open_attempt(identity)
        run, attempt = flows_urn("run", opened.run.id), flows_urn("attempt", opened.attempt.id)
        step, before, made = f"urn:x:step:{number}", made, f"urn:x:file:{number}"
        records = [
            activity(run, "flow-run", opened.run.created_at, name="chained"),
            activity(attempt, "attempt", opened.attempt.started_at),
            relation("wasStartedBy", attempt, run),
            code,
            relation("hadPlan", attempt, code.id),
            activity(step, "task-run", name=f"step {number}"),
            relation("wasStartedBy", step, attempt),
            entity(before, "file"),
            relation("used", step, before),
            entity(made, "file"),
            relation("wasGeneratedBy", made, step),
        ]
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
        journal.runs.close_attempt(opened.attempt.id, "completed")
    return made


def test_a_trace_follows_long_chains_and_reads_only_what_is_on_the_way(ivcap_flows, journal_file):
    """What other runs did with the same code is neither read nor told."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        chained(journal, 60)
        read = {record.id for record in journal.lineages.around(["urn:x:file:5"], "up")}
    assert "urn:x:step:5" in read and "urn:x:step:6" not in read
    out = ivcap_flows("trace", "urn:x:file:5").out
    assert "urn:x:file:0" in out and "urn:x:file:6" not in out
    assert "urn:x:file:0" in ivcap_flows("trace", "urn:x:file:60").out


def test_what_others_made_with_equal_bytes_is_one_line(ivcap_flows, journal_file):
    """The trace of a file leads to its own maker alone, also after ten runs that each made the same bytes."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        for number in range(10):
            opened = journal.runs.open_attempt(RunIdentity("f", "/a.py:f", {}, f"r{number}", f"r{number}"))
            records = [
                activity(f"urn:x:make:{number}", "task-run", opened.run.created_at),
                entity(f"urn:x:series:{number}", "file", path=f"{number}.csv"),
                relation("used", f"urn:x:make:{number}", f"urn:x:series:{number}"),
                entity(f"urn:x:out:{number}", "file", path="out.csv", sha256="ab" * 32, size=100),
                relation("wasGeneratedBy", f"urn:x:out:{number}", f"urn:x:make:{number}", opened.run.created_at),
            ]
            journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    out = ivcap_flows("trace", "urn:x:out:7").out
    assert re.findall(r"urn:x:\w+:\d", out) == ["urn:x:out:7", "urn:x:make:7", "urn:x:series:7"]
    assert "also made by 9 others, with equal bytes" in out


def test_a_terminal_shows_short_ids_unless_they_are_to_be_whole(ivcap_flows, journal_file, monkeypatch):
    """A file or another program gets them whole."""
    order = "urn:ivcap:order:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("f", "/a.py:f", {}, "r", "r"))
        records = [activity(order, "order", name="o"), entity("102.100.100/1", "dataset")]
        records.append(relation("wasGeneratedBy", "102.100.100/1", order))
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    assert order in ivcap_flows("trace", "102.100.100/1").out
    monkeypatch.setattr(console, "_force_terminal", True)
    assert "order:…c3d2e1f0" in (short := ivcap_flows("trace", "102.100.100/1").out) and order not in short
    assert "102.100.100/1" in short
    assert order in ivcap_flows("trace", "102.100.100/1", "--full").out


def test_what_a_step_was_given_counts_for_what_it_started(ivcap_flows, journal_file):
    """An order placed inside a user's own step comes from what that step used, and the words say by whom."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("f", "/a.py:f", {}, "r", "r"))
        records = [
            activity("urn:x:mine", "task-run", name="choose region"),
            activity("urn:ivcap:order:o", "order", name="o"),
            relation("wasStartedBy", "urn:ivcap:order:o", "urn:x:mine"),
            entity("urn:x:regions", "file", path="regions.csv"),
            relation("used", "urn:x:mine", "urn:x:regions"),
            entity("urn:x:product", "artifact"),
            relation("wasGeneratedBy", "urn:x:product", "urn:ivcap:order:o"),
        ]
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    up = ivcap_flows("trace", "urn:x:product").out
    assert "by choose region used file  regions.csv" in up
    down = ivcap_flows("trace", "urn:x:regions", "--down").out
    assert "started order" in down and depth_of(down, "urn:x:product") > depth_of(down, "started order")


def test_what_is_met_again_is_not_told_again(ivcap_flows, journal_file):
    """Two steps of one source: the source's own origin stands once."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("f", "/a.py:f", {}, "r", "r"))
        names = ("root", "a", "b", "end")
        records = [entity(f"urn:x:{name}", "file", path=name) for name in (*names, "origin")]
        for made, sources in {"root": ["origin"], "a": ["root"], "b": ["root"], "end": ["a", "b"]}.items():
            records += [relation("wasDerivedFrom", f"urn:x:{made}", f"urn:x:{source}") for source in sources]
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    out = ivcap_flows("trace", "urn:x:end").out
    assert out.count("urn:x:origin") == 1 and out.count("urn:x:root") == 2
    assert [line for line in out.splitlines() if "(see above)" in line] == [
        line for line in out.splitlines() if "urn:x:root" in line
    ][1:]


OVER = ("flow-run", "attempt", "call")


def test_a_run_whose_process_is_gone_is_lost(on_record, journal_file):
    """As `show` and `runs` say, before anyone has written it down; what it was at is lost with it."""
    [run] = on_record("runs", "--flow", "interrupted", "--json").json
    with Journal.open(f"sqlite:///{journal_file}") as journal:
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
    out = on_record("trace", run["id"]).out
    assert run["outcome"] == "lost" and "lost" in out and "running" not in out
    nodes = on_record("trace", run["id"], "--json").json
    told = {node["type"]: node["attributes"]["outcome"] for node in nodes if node["type"] in OVER}
    assert told == dict.fromkeys(OVER, "lost")


@recorded
def fill(folder):
    """Make all files of a folder, or of a store."""
    folder.mkdir()
    for name in (".zgroup", "0.0") if folder.suffix == ".zarr" else ("a.csv", "b.csv"):
        (folder / name).write_text('{"zarr_format": 2}' if name == ".zgroup" else f"{folder} {name}")
    return folder


@recorded
def append(path):
    """Change a file by a program that nobody sees read or write."""
    subprocess.run(["sh", "-c", 'echo more >> "$0"', str(path)], check=True)


def record_calls(journal_file, *calls):
    """Make recorded calls outside of any flow, each with its path."""
    with Journal.open(f"sqlite:///{journal_file}") as journal, use_journal(journal):
        for call, path in calls:
            call(path)
        # git may take longer than the calls.
        for thread in threading.enumerate():
            if thread.name == "ivcap-flows-code":
                thread.join()
        assert recorder().flush()


@pytest.mark.parametrize("name", ["made", "made.zarr"])
def test_a_trace_starts_from_a_folder_or_a_store(ivcap_flows, journal_file, tmp_path, name):
    """By its path as the call left it, and by its content wherever it is copied to."""
    record_calls(journal_file, (fill, tmp_path / name))
    out = ivcap_flows("trace", tmp_path / name).out
    assert out.startswith(f"directory  {tmp_path / name}") and "made by call  fill" in out
    shutil.copytree(tmp_path / name, tmp_path / f"copy of {name}")
    assert "call  fill" in ivcap_flows("trace", tmp_path / f"copy of {name}").out
    (tmp_path / name / "more.csv").write_text("of nobody")
    said = ivcap_flows("trace", tmp_path / name)
    assert said.status == 2 and f"Nothing is on record of {tmp_path / name}" in said.err


def shadowed(on_record, folder):
    (folder / "latest").write_text("a file that no run has seen")
    for command in ("trace", "verify"):
        assert on_record(command, "latest").out
    said = on_record("trace", "./latest")
    assert said.status == 2 and "Nothing is on record of ./latest" in said.err
    assert "unknown" in on_record("verify", "./latest").out


@pytest.mark.mutant(None)
def test_a_file_does_not_hide_the_run_of_its_name(on_record, tmp_path, monkeypatch):
    """`latest` is the newest run, whatever lies in the working directory; `./latest` is the file."""
    monkeypatch.chdir(tmp_path)
    shadowed(on_record, tmp_path)


@pytest.mark.mutant("files before runs")
def test_a_build_in_which_files_hide_runs_is_found(on_record, tmp_path, monkeypatch):
    """The test above fails on it."""
    monkeypatch.chdir(tmp_path)
    mutate("files before runs", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        shadowed(on_record, tmp_path)


def test_a_part_of_a_runs_id_does_not_hide_a_file(on_record, tmp_path, monkeypatch):
    """A folder or a file may be called `2010`, though an id begins or ends so."""
    monkeypatch.chdir(tmp_path)
    [id_, *_] = [run["id"] for run in on_record("runs", "--json").json]
    for name in (id_[:2], id_[-3:]):
        (tmp_path / name).write_text("a file that no run has seen")
        assert "Nothing is on record of" in on_record("trace", name).err
        assert on_record("trace", id_).status == 0


def told_unknown(ivcap_flows, journal_file, path):
    path.write_text("a line of more than sixteen bytes\n")
    record_calls(journal_file, (append, path))
    unknown = f"{path}: it is not known whether it was read before it was overwritten"
    lines = [line.strip(" │") for line in ivcap_flows("trace", path).out.splitlines()]
    at = next(number for number, line in enumerate(lines) if "call  append" in line)
    assert lines[at + 1].startswith(unknown), lines


@pytest.mark.mutant(None)
def test_a_trace_says_what_the_record_does_not_know(ivcap_flows, journal_file, tmp_path):
    """Below the call whose files it is about, as the page does."""
    told_unknown(ivcap_flows, journal_file, tmp_path / "log.txt")


@pytest.mark.mutant("unknowns untold")
def test_a_build_that_hides_unknowns_is_found(ivcap_flows, journal_file, tmp_path, monkeypatch):
    """The test above fails on it."""
    mutate("unknowns untold", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        told_unknown(ivcap_flows, journal_file, tmp_path / "log.txt")


def test_a_trace_in_one_line(on_record, world):
    """Data and what was ordered, nearest first; each name once."""
    up = on_record("trace", world.downloaded, "--brief").out.strip()
    assert up.startswith("upper.csv ← cli-upper") or up.split(" ← ")[0] == world.downloaded.name
    assert up.endswith(world.source.name) and up.count(world.source.name) == 1
    down = on_record("trace", world.source, "--down", "--brief").out.strip()
    assert down.startswith(world.source.name) and " → " in down and "upper.csv" in down


def test_a_page_is_opened(on_record, world, monkeypatch, tmp_path):
    """In the user's browser, from a file of its own or the one that was named; without a browser it is named."""
    opened = []
    monkeypatch.setattr(trace.webbrowser, "open", lambda address: opened.append(address) or True)
    assert on_record("trace", world.made["product"], "--open").status == 0
    assert on_record("trace", world.made["product"], "--open", "--html", tmp_path / "page.html").status == 0
    assert [address.startswith("file:///") for address in opened] == [True, True]
    assert opened[1] == (tmp_path / "page.html").as_uri() and (tmp_path / "page.html").exists()
    monkeypatch.setattr(trace.webbrowser, "open", lambda address: False)
    said = on_record("trace", world.made["product"], "--open")
    assert said.status == 0 and "trace.html: " in said.out
