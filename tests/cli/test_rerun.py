"""`rerun`: a flow once more, on the same inputs and parameters, and what differs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mutants import mutate
from prefect.settings import (
    temporary_settings,
)
from pydantic import SecretStr

from flows.coastal_el_nino import coastal_el_nino
from ivcap_flows.capture import use_journal
from ivcap_flows.cli import main
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.identity import digest
from ivcap_flows.journal import Journal
from ivcap_flows.local.register import read_definition, register

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def load(file: Path = HERE / "rerun_flows.py") -> object:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def flows(world, prefect_settings, journal_file, embedded_platform, monkeypatch) -> Iterator[object]:
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{journal_file}")
    with (
        temporary_settings(prefect_settings),
        Journal.open(f"sqlite:///{journal_file}") as journal,
        use_journal(journal),
    ):
        yield load()


@pytest.fixture
def rerun(capsys) -> Callable[..., tuple[int, dict, str]]:
    def run(*arguments: str) -> tuple[int, dict, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["rerun", *arguments])
        out, err = capsys.readouterr()
        return ended.value.code, json.loads(out) if out.startswith("{") else {}, out + err

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


def test_a_rerun_uses_the_orders_of_before_and_makes_the_same(flows, rerun, world, tmp_path, journal_file):
    """As a new run with the same bytes; with --pay by another order. An input that was changed is refused."""
    source, target = tmp_path / "source.csv", tmp_path / "out" / "upper.csv"
    target.parent.mkdir()
    source.write_text(f"{tmp_path} again\n")
    urn = flows.shouted(source, target)
    content = target.read_bytes()
    target.unlink()
    status, said, out = rerun("latest", "--json")
    assert status == 0, out
    assert said["same_results"] and said["first"] != said["second"] and target.read_bytes() == content
    assert orders(journal_file) == [("sent", urn), ("reused", urn)]
    status, said, out = rerun(said["first"], "--pay", "--json")
    assert status == 0 and said["same_results"], out
    [*_, (how, paid)] = orders(journal_file)
    assert how == "sent" and paid != urn
    source.write_text("other\n")
    status, _, out = rerun(said["first"])
    assert status == 2 and f"The input {source}" in out and len(orders(journal_file)) == 3


def test_pay_overrides_what_runs_share(flows, rerun, journal_file, monkeypatch):
    """Work of the account, the flow or an earlier run is kept without --pay, and placed anew each time with it."""
    monkeypatch.setenv("IVCAP_FLOWS_REUSE", "1")
    before = flows.shared(uuid.uuid4().hex)
    assert len(set(before)) == 3
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"], out
    assert len(sent(journal_file)) == 3
    for count in (6, 9):
        assert rerun(said["first"], "--pay", "--json")[1]["second"] not in (said["first"], said["second"])
        assert len(sent(journal_file)) == count


@pytest.mark.long
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "gone"])
def test_what_was_made_and_uploaded_is_the_same_again(flows, rerun, tmp_path, kept):
    """Whether the file is still there or is made anew; the second run finds its artifact."""
    source, target = tmp_path / "raw.csv", tmp_path / "clean.csv"
    source.write_text(f"{tmp_path}\n\n1,2\n")
    flows.prepared(source, target)
    if not kept:
        target.unlink()
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"] and not said["inputs"], out
    status, said, out = rerun(said["first"], "--json")
    assert status == 0 and said["same_results"] and not said["inputs"], out


@pytest.mark.long
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "gone"])
def test_a_rerun_of_the_example_makes_the_same_index(flows, rerun, own_series, tmp_path, kept):
    """With the order of before, the sha256 of the index is the same. Another file may lie beside."""
    service = ROOT / "flows/services/coastal_el_nino_index.yaml"
    register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], read_definition(service), service)
    # A range is published again whatever was published before.
    coastal_el_nino(str(own_series), "2010-12", output=tmp_path / "results")
    made = digest((tmp_path / "results/2010-12/index.csv").read_bytes())
    if kept:
        (tmp_path / "results" / "notes.txt").write_text("mine")
    else:
        shutil.rmtree(tmp_path / "results")
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"], out
    assert {change["name"] for change in said["inputs"]} <= {"notes.txt"}, out
    assert digest((tmp_path / "results/2010-12/index.csv").read_bytes()) == made


def test_a_rerun_says_what_came_out_otherwise(flows, rerun, world, tmp_path, monkeypatch):
    """And that nothing on record explains it; a handle is given as the handle that it was."""
    given = Artifact(urn=world.made["series"], platform="urn:x", name="series")
    monkeypatch.setenv("STAMP", "one")
    flows.stamped(given, str(tmp_path / "stamp.txt"))
    (tmp_path / "stamp.txt").unlink()
    monkeypatch.setenv("STAMP", "two")
    status, _, out = rerun("latest")
    assert status == 1 and "stamp.txt: " in out and "nothing on record explains it" in out


@pytest.mark.parametrize("name", ["confidential", "moved"])
def test_what_cannot_be_run_again_is_refused(flows, rerun, tmp_path, journal_file, name, monkeypatch):
    """Secrets and data in memory, which no record holds; code that is not where it was."""
    flows.confidential(SecretStr("hush"), b"bytes")
    words = {"confidential": ["word (a secret", "data (a bytes"], "moved": ["cannot be found", "is not there"]}
    if name == "moved":
        monkeypatch.setattr("ivcap_flows.cli.rerun.Path.is_file", lambda path: False)
    status, _, out = rerun("latest")
    assert status == 2 and all(word in out for word in words[name]), out
    assert "hush" not in out


def test_what_was_secret_is_given_again(flows, rerun):
    """By `--set`, and only that: whole parameters, of what was no text as JSON. None of it is told."""
    flows.confided(SecretStr("hush-hush-1"), "host=x password=other-1", {"password": "third-1"})
    status, _, out = rerun("latest")
    assert status == 2 and "--set name=value" in out and "word" in out
    given = ["--set", "word=hush-hush-1", "--set", "dsn=host=x password=other-1"]
    status, _, out = rerun("latest", *given, "--set", "options=third-1")
    assert status == 2 and "needs YAML or JSON" in out
    status, _, out = rerun("latest", "--set", "nothing=1")
    assert status == 2 and "word, dsn, options" in out
    status, said, out = rerun("latest", *given, "--set", 'options={"password": "third-1"}', "--json")
    assert status == 0 and said["same_results"], out
    assert not [secret for secret in ("hush-hush-1", "other-1", "third-1") if secret in out]


SMALL = """
from prefect import flow
from ivcap_flows import recorded

@flow
@recorded
def small({name}: int) -> str:
    print("this is {place}", {name})
    return "{place}"
"""


@pytest.mark.long
def test_handles_within_other_values_are_given_again(flows, rerun, world, tmp_path):
    """In unions, lists and mappings."""
    file = tmp_path / "mine.csv"
    file.write_text("mine")
    given = Artifact(urn=world.made["series"], platform="urn:x", name="series")
    local = LocalFile(path=str(file), sha256=digest(b"mine"), size=4)
    flows.handed(given, [given], {"series": given}, local)
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"], out


@pytest.mark.long
def test_what_the_run_wrote_is_no_input(flows, rerun, tmp_path):
    """A file that it overwrote, and one that it left with the content of its input; that which it read is one."""
    source, target = tmp_path / "raw.csv", tmp_path / "out" / "clean.csv"
    target.parent.mkdir()
    source.write_text(f"{tmp_path}\n1,2\n")
    flows.prepared(source, target)
    source.write_text(f"{tmp_path}\n\n1,2\n3,4\n")
    flows.prepared(source, target)
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"], out
    first = [run for run in runs() if run not in (said["first"], said["second"])]
    status, _, out = rerun(*first)
    assert status == 2 and f"The input {source}, given as `source`," in out, out
    source.write_text(f"{tmp_path}\n1,2\n")
    status, said, out = rerun(*first, "--json")
    assert status == 0 and said["same_results"], out


@pytest.mark.long
@pytest.mark.parametrize("there", [True, False], ids=["there", "new"])
def test_what_a_body_wrote_into_a_folder_is_no_input(flows, rerun, tmp_path, there):
    """Where the folder is a parameter; it may be gone then."""
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    flows.summed(folder)
    shutil.rmtree(folder)
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"], out


def test_a_changed_folder_is_refused(flows, rerun, tmp_path):
    """As a changed file is."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("a")
    flows.counting(folder)
    assert rerun("latest")[0] == 0
    (folder / "b.csv").write_text("b")
    status, _, out = rerun("latest")
    assert status == 2 and f"The input {folder}" in out, out


@pytest.mark.long
def test_relative_paths_are_those_of_before(flows, rerun, tmp_path, monkeypatch):
    """From another folder they would be other files."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "raw.csv").write_text(f"{tmp_path}\n{place}\n")
    monkeypatch.chdir(tmp_path / "here")
    flows.prepared(Path("raw.csv"), Path("clean.csv"))
    monkeypatch.chdir(tmp_path / "there")
    status, _, out = rerun("latest")
    assert status == 2 and str(tmp_path / "here" / "raw.csv") in out and str(tmp_path / "there" / "raw.csv") in out
    assert not Path("clean.csv").exists()
    monkeypatch.chdir(tmp_path / "here")
    status, said, out = rerun("latest", "--json")
    assert status == 0 and said["same_results"], out


def test_the_code_that_was_run_is_run(flows, rerun, tmp_path, monkeypatch):
    """Not that of another checkout, in which one stands; where that is loaded already, nothing is run."""
    package = f"rerun_{uuid.uuid4().hex}"
    for place in ("here", "there"):
        (tmp_path / place / package).mkdir(parents=True)
        (tmp_path / place / package / "__init__.py").touch()
        (tmp_path / place / package / "flows.py").write_text(SMALL.format(name="n", place=place))
    monkeypatch.setattr(sys, "path", [*sys.path])
    load(tmp_path / "here" / package / "flows.py").small(1)
    monkeypatch.chdir(tmp_path / "there")
    status, _, out = rerun("latest")
    assert status == 0 and "this is here" in out and "this is there" not in out, out
    for name in (package, f"{package}.flows"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "there")
    importlib.import_module(f"{package}.flows")
    before = runs()
    status, _, out = rerun("latest")
    assert status == 2 and str(tmp_path / "there" / package / "flows.py") in out and runs() == before, out


def test_a_run_that_did_not_begin_is_compared_with_none(flows, rerun, tmp_path):
    """Though another run of the flow is newer than the one that was to be repeated."""
    file = tmp_path / "small_flow.py"
    file.write_text(SMALL.format(name="n", place="here"))
    flow = load(file).small
    flow(1)
    [first] = runs()
    flow(2)
    # Of another size: Python compiles a file of the same size and second only once.
    file.write_text(SMALL.format(name="number", place="here"))
    status, said, out = rerun(first, "--json")
    assert status == 2 and not said and "InputError: The flow small did not start" in out, out


def spelled(flows, rerun, ivcap_flows, folder: Path) -> None:
    """Run a flow on files with odd names, and let each command find them again."""
    folder.mkdir()
    for name in flows.SPELLED:
        (folder / name).write_text(f"{folder}\n\n{name!r}\n")
    flows.spelled(folder)
    paths = sorted(folder.iterdir())
    said = ivcap_flows("verify", "spelled", "--json")
    assert [found["state"] for found in said.json["findings"]] == ["ok"] * len(paths) == ["ok"] * 4
    crate = folder.with_name("crate")
    assert ivcap_flows("export", "spelled", "--format", "ro-crate", "-o", crate).status == 0
    held = {path.read_bytes() for path in (crate / "data").rglob("*.*")}
    assert {path.read_bytes() for path in paths} == held
    for path in paths:
        assert ivcap_flows("verify", path).status == 0
        assert "task-run  cleaned" in ivcap_flows("trace", path, "--up", "--down").out
    status, compared, out = rerun("spelled", "--json")
    assert status == 0 and compared["same_results"], out


@pytest.mark.mutant(None)
def test_a_file_is_found_again_whatever_its_name(flows, rerun, ivcap_flows, tmp_path):
    """Also one that is no UTF-8: what the record displays of it is not taken for its path."""
    spelled(flows, rerun, ivcap_flows, tmp_path / "data")


@pytest.mark.mutant("paths as displayed")
def test_a_build_that_opens_paths_as_displayed_is_found(flows, rerun, ivcap_flows, tmp_path, monkeypatch):
    """The test above fails on it."""
    mutate("paths as displayed", monkeypatch.setattr)
    with pytest.raises(AssertionError):
        spelled(flows, rerun, ivcap_flows, tmp_path / "data")
