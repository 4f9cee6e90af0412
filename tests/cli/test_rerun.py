"""`rerun`: whether a run can be repeated, and the commands that repeat it and compare both runs."""

import os
import random
import shutil
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

import pytest
from checkouts import git
from modules import load
from pydantic import SecretStr

from flows.coastal_el_nino import coastal_el_nino
from ivcap_flows.cli.rerun import Input, inputs_of
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import digest, flows_urn
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Graph, Record, activity, entity, relation

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMITTED = (("init", "-q"), ("add", "."), ("commit", "-qm", "flows"))


@pytest.fixture
def flows(world, prefect_api, ivcap_journal, embedded_platform):
    return load(HERE / "rerun_flows.py")


@pytest.fixture
def repeat(ivcap_flows, without_logs, monkeypatch):
    """Do what `rerun` prints: the difference between the two runs."""

    def run(name: str = "latest", *more: str, **environment: str) -> dict:
        said = ivcap_flows("rerun", name, "--json")
        again = said.json
        assert bool(again["problems"]) == bool(said.status) == bool(more), again
        with monkeypatch.context() as patch:
            patch.chdir(again["folder"])
            for variable, value in {**again["environment"], **environment}.items():
                patch.setenv(variable, value)
            repeated = ivcap_flows(*again["command"][1:], *more)
            assert repeated.status == 0, repeated
            compared = ivcap_flows(*again["compare"][1:], "--json")
        found = compared.json
        assert found["first"] != found["second"] and compared.status == (not found["same_results"])
        return found

    return run


def orders(journal_file) -> list[tuple[str, str]]:
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        rows = journal.intents.where(noun="order", limit=None)
        return [(row.how, row.urn) for row in sorted(rows, key=lambda row: row.created_at)]


def sent(journal_file) -> set[str]:
    """The orders and jobs that were paid for."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        return {row.urn for row in journal.intents.where(limit=None) if row.spends and row.how == "sent"}


def runs() -> list[str]:
    with Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]) as journal:
        return [run.id for run in journal.runs.recent(50)]


CHANGED = """
$ rerun {run}
The input {path} has changed: its sha256 was … and is …. Restore it; `ivcap-flows trace … --down` lists …
cd …
IVCAP_FLOWS_REUSE=1 ivcap-flows run …
ivcap-flows diff …
[1]
"""


def test_a_repeated_run_uses_the_orders_of_before_and_makes_the_same(
    flows, ivcap_flows, transcript, repeat, tmp_path, journal_file
):
    """As a new run with the same bytes. An input that was changed is named, and nothing is run by `rerun` itself."""
    source, target = tmp_path / "source.csv", tmp_path / "out" / "upper.csv"
    target.parent.mkdir()
    source.write_text(f"{tmp_path} again\n")
    urn = flows.shouted(source, target)
    content = target.read_bytes()
    target.unlink()
    [first] = runs()
    unchanged = """
$ rerun latest
The inputs of run {run} are unchanged. To repeat it and compare the two runs:
cd {folder}
IVCAP_FLOWS_REUSE=1 ivcap-flows run …/rerun_flows.py:shouted --fresh -p source={source} -p target={target}
ivcap-flows diff {short} latest
"""
    named = {"run": first, "short": first[-8:], "folder": os.getcwd(), "source": source, "target": target}
    transcript(ivcap_flows, unchanged, **named)
    assert runs() == [first] and not target.exists()
    assert repeat()["same_results"] and target.read_bytes() == content
    assert orders(journal_file) == [("sent", urn), ("reused", urn)]
    source.write_text("other\n")
    transcript(ivcap_flows, CHANGED, run=first, path=source)
    source.unlink()
    gone = "The input {source} cannot be read: No such file or directory. Restore it; `ivcap-flows trace … --down` …"
    transcript(ivcap_flows, f"$ rerun {{first}}\n{gone}\n…\n[1]", first=first, source=source)


def test_paying_again_overrides_what_runs_share(flows, repeat, journal_file, monkeypatch):
    """Work of the account, the flow or an earlier run is kept, and placed anew each time with IVCAP_FLOWS_PAY_AGAIN."""
    monkeypatch.setenv("IVCAP_FLOWS_REUSE", "1")
    before = flows.shared(uuid.uuid4().hex)
    assert len(set(before)) == 3
    found = repeat()
    assert found["same_results"] and len(sent(journal_file)) == 3
    for count in (6, 9):
        repeat(found["first"], IVCAP_FLOWS_PAY_AGAIN="1")
        assert len(sent(journal_file)) == count


@pytest.mark.long
def test_a_repeated_example_makes_the_same_index(flows, example_services, repeat, own_series, tmp_path):
    """With the order of before, the sha256 of the index is the same. Another file may lie beside, or all be gone."""
    index = tmp_path / "results/2010-12/index.csv"
    # A range is published again whatever was published before.
    coastal_el_nino(str(own_series), "2010-12", output=tmp_path / "results")
    made, [first] = digest(index.read_bytes()), runs()
    for change in (lambda folder: (folder / "notes.txt").write_text("mine"), shutil.rmtree):
        change(tmp_path / "results")
        found = repeat(first)
        assert found["same_results"] and {each["name"] for each in found["inputs"]} <= {"notes.txt"}
        assert digest(index.read_bytes()) == made


def test_what_came_out_otherwise_is_named(flows, ivcap_flows, transcript, repeat, tmp_path, monkeypatch):
    """And that nothing on record explains it."""
    monkeypatch.setenv("STAMP", "one")
    flows.stamped(str(tmp_path / "stamp.txt"))
    (tmp_path / "stamp.txt").unlink()
    found = repeat(STAMP="two")
    assert not found["same_results"]
    said = ivcap_flows("diff", found["first"], found["second"])
    assert said.status == 1 and "stamp.txt: " in said.out and "nothing on record explains it" in said.out


@pytest.mark.parametrize(
    ("commands", "step"),
    [((), "Put it back"), (COMMITTED, "Its commit is on record; check it out to the same path")],
    ids=["not committed", "committed"],
)
@pytest.mark.usefixtures("prefect_api", "ivcap_journal", "embedded_platform")
def test_what_no_command_can_give_is_named(commands, step, ivcap_flows, transcript, world, tmp_path):
    """Data in memory, which no record holds; handles, also within lists and mappings; code that is gone."""
    code = tmp_path / "project" / "rerun_flows.py"
    code.parent.mkdir()
    shutil.copy(HERE / code.name, code)
    for command in commands:
        git(code.parent, *command)
    given = Artifact(urn=world.made["series"], platform="urn:x", name="series")
    load(code).handed(given, [given], {"series": given}, given.urn, b"bytes")
    code.unlink()
    named = """
$ rerun latest
The code is gone: there is no file …/rerun_flows.py. {step}.
Add these parameters, …: one ({handle}); many ({handle}); named ({handle}); urn ({handle}); data (a bytes, …).
cd …
IVCAP_FLOWS_REUSE=1 ivcap-flows run …/rerun_flows.py:handed --fresh
ivcap-flows diff … latest
[1]
"""
    transcript(ivcap_flows, named, handle=f"a handle, of which the URN is recorded: {given.urn}", step=step)


def test_what_was_secret_is_added(flows, ivcap_flows, transcript, repeat):
    """Whole parameters, to the printed command. None of it is in what is printed."""
    flows.confided(SecretStr("s3cret-1"), "host=x password=s3cret-2", {"password": "s3cret-3"})
    added = """
$ rerun latest
Add these parameters, …: word (a secret, …); dsn (a secret, …); options (a secret, …).
…
[1]
"""
    transcript(ivcap_flows, added)
    given = ("word=s3cret-1", "dsn=host=x password=s3cret-2", 'options={"password": "s3cret-3"}')
    assert repeat("latest", *(word for each in given for word in ("-p", each)))["same_results"]


def test_inputs_do_not_depend_on_the_order_of_facts():
    """A file that was changed in place, a copy, and what lies in a new folder are no inputs; their sources are."""

    def version(noun: str, path: str, content: str) -> Record:
        digests = {"file": "sha256", "directory": "manifest_sha256"}
        return entity(flows_urn(noun, f"{path} {content}"), noun, path=path, **{digests[noun]: content * 64})

    step = activity(flows_urn("call", "step"), "call", datetime.now(timezone.utc))
    source, copy = version("file", "/in/raw.csv", "a"), version("file", "/out/raw.csv", "a")
    before, after = version("file", "/in/state.csv", "b"), version("file", "/in/state.csv", "c")
    new, member = version("directory", "/new", "d"), version("file", "/new/part.csv", "e")
    store, folder = version("directory", "/store", "f"), version("directory", "/in", "0")
    used, made = (source, before, member, store, folder), (copy, after, new)
    records = [
        step,
        *used,
        *made,
        *(relation("used", step.id, thing.id) for thing in used),
        *(relation("wasGeneratedBy", thing.id, step.id) for thing in made),
    ]
    expected = {Input("/in/raw.csv", frozenset({"a" * 64})), Input("/store", frozenset({"f" * 64}))}
    for seed in range(20):
        random.Random(seed).shuffle(records)
        assert set(inputs_of(Graph(records))) == expected


@pytest.mark.long
def test_what_a_run_made_is_no_input(flows, ivcap_flows, transcript, repeat, tmp_path):
    """A file that it overwrote, whether that is still there or is made anew, and one that it left with the content of
    its input; that which it read is one. Each run finds the artifact of before."""
    source, target = tmp_path / "raw.csv", tmp_path / "clean.csv"
    source.write_text(f"{tmp_path}\n1,2\n")
    flows.prepared(source, target)
    [first] = runs()
    source.write_text(f"{tmp_path}\n\n1,2\n3,4\n")
    flows.prepared(source, target)
    for before in (target.exists, target.unlink):
        before()
        found = repeat()
        assert found["same_results"] and not found["inputs"]
    transcript(ivcap_flows, CHANGED, run=first, path=source)
    source.write_text(f"{tmp_path}\n1,2\n")
    assert repeat(first)["same_results"]


@pytest.mark.long
def test_what_a_body_wrote_into_a_folder_is_no_input(flows, repeat, tmp_path):
    """Where the folder is a parameter: whether it was there, and though it is gone."""
    for name in ("there", "new"):
        folder = tmp_path / name
        if name == "there":
            folder.mkdir()
            (folder / "notes.txt").write_text("mine")
        flows.summed(folder)
        shutil.rmtree(folder)
        assert repeat()["same_results"], name


def test_a_changed_folder_is_named(flows, ivcap_flows, transcript, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("a")
    flows.counting(folder)
    assert ivcap_flows("rerun", "latest").status == 0
    (folder / "b.csv").write_text("b")
    transcript(ivcap_flows, CHANGED, run="latest", path=folder)


@pytest.mark.long
def test_relative_paths_are_those_of_before(flows, repeat, tmp_path, monkeypatch):
    """From another folder they would be other files, so the folder is printed."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "raw.csv").write_text(f"{tmp_path}\n{place}\n")
    monkeypatch.chdir(tmp_path / "here")
    flows.prepared(Path("raw.csv"), Path("clean.csv"))
    monkeypatch.chdir(tmp_path / "there")
    found = repeat()
    assert found["same_results"] and not found["inputs"] and not Path("clean.csv").exists()


SMALL = """
from prefect import flow
from ivcap_flows import recorded

@flow
@recorded
def small(n: int) -> str:
    return "here"
"""


def test_code_in_a_package_is_named_by_its_module(flows, ivcap_flows, transcript, tmp_path, monkeypatch):
    """With the folder to import it from, whatever lies in the current one; nothing of it is loaded by `rerun`."""
    package = f"rerun_{uuid.uuid4().hex}"
    for place in ("here", "there"):
        (tmp_path / place / package).mkdir(parents=True)
        (tmp_path / place / package / "__init__.py").touch()
        (tmp_path / place / package / "flows.py").write_text(SMALL)
    monkeypatch.setattr(sys, "path", [*sys.path])
    load(tmp_path / "here" / package / "flows.py").small(1)
    monkeypatch.chdir(tmp_path / "there")
    named = """
$ rerun latest
The inputs of run … are unchanged. …
cd …
IVCAP_FLOWS_REUSE=1 PYTHONPATH={folder} ivcap-flows run {package}.flows:small --fresh -p n=1
ivcap-flows diff … latest
"""
    transcript(ivcap_flows, named, folder=tmp_path / "here", package=package)
    assert package not in sys.modules


@pytest.mark.catches("paths as displayed")
def test_a_file_is_found_again_whatever_its_name(flows, repeat, ivcap_flows, tmp_path):
    """Also one that is no UTF-8: what the record displays of it is not taken for its path."""
    folder, crate = tmp_path / "data", tmp_path / "crate"
    folder.mkdir()
    for name in flows.SPELLED:
        (folder / name).write_text(f"{folder}\n\n{name!r}\n")
    flows.spelled(folder)
    paths = sorted(folder.iterdir())
    said = ivcap_flows("verify", "spelled", "--json")
    assert [found["state"] for found in said.json["findings"]] == ["ok"] * len(paths) == ["ok"] * 4
    assert ivcap_flows("export", "spelled", "--format", "ro-crate", "-o", crate).status == 0
    held = {path.read_bytes() for path in (crate / "data").rglob("*.*")}
    assert {path.read_bytes() for path in paths} == held
    for path in paths:
        assert ivcap_flows("verify", path).status == 0
        assert "task-run  cleaned" in ivcap_flows("trace", path, "--up", "--down").out
    assert repeat("spelled")["same_results"]
