"""One run, continued on a second machine that has a journal of its own: what is delivered of it is told together."""

import uuid
from dataclasses import dataclass

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation
from ivcap_flows.sinks import FolderSink, IvcapSink, Sink, drain


@dataclass
class Continued:
    """A run whose first machine cleaned `series` into `clean`, and whose second made `report` of that."""

    run: str
    journals: list[Journal]
    series: str
    clean: str
    report: str


def attempt(journal: Journal, root: str, step: str, used: str, made: str, outcome: str) -> None:
    """Record an attempt of the run of the Prefect flow run `root`, which makes `made` of `used`."""
    opened = journal.runs.open_attempt(RunIdentity("coastal", "/a.py:f", {}, root, root, deployed=True))
    run, name = flows_urn("run", opened.run.id), flows_urn("attempt", opened.attempt.id)
    task, began, ended = flows_urn("task-run", str(uuid.uuid4())), opened.attempt.started_at, journal.now()
    records = [
        activity(run, "flow-run", began, ended, name="coastal", outcome=outcome),
        activity(name, "attempt", began, ended, name="coastal", number=opened.attempt.number, outcome=outcome),
        *(relation("wasStartedBy", name, run), activity(task, "task-run", began, name=step)),
        *(relation("wasStartedBy", task, name), entity(used, "artifact"), entity(made, "artifact")),
        *(relation("used", task, used), relation("wasGeneratedBy", made, task)),
    ]
    journal.facts.append([Fact(each, opened.run.id, opened.attempt.id) for each in records])
    journal.runs.close_attempt(opened.attempt.id, outcome)


@pytest.fixture
def continued(tmp_path, embedded_platform):
    root = str(uuid.uuid4())
    series, clean, report = (f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(3))
    first, second = (f"sqlite:///{tmp_path / name}.sqlite" for name in ("first", "second"))
    with Journal.open(first) as cleaning, Journal.open(second) as reporting:
        attempt(cleaning, root, "cleaning", series, clean, "failed")
        attempt(reporting, root, "reporting", clean, report, "completed")
        [run] = cleaning.runs.recent()
        yield Continued(flows_urn("run", run.id), [cleaning, reporting], series, clean, report)


def deliver(journal: Journal, sink: Sink | None = None) -> None:
    client = IvcapCredentials.from_environment().get_client()
    [report] = drain(journal, [sink or IvcapSink(client, journal)], again=True)
    assert (report.pending, report.dead) == (0, 0)


@pytest.mark.parametrize("last", ["cleaning", "reporting"])
def test_the_platform_tells_both_parts(ivcap_flows, continued, monkeypatch, last):
    """Whichever is delivered last: one chain from the report to the series, in one run that has completed. Each
    machine, whose journal has one attempt, tells of the part that the other has."""
    for journal in continued.journals if last == "reporting" else continued.journals[::-1]:
        deliver(journal)
    out = ivcap_flows("trace", continued.report).out
    chain = [continued.report, "reporting", continued.clean, "cleaning", continued.series]
    assert [out.index(text) for text in chain] == sorted(out.index(text) for text in chain)
    [run] = [line for line in out.splitlines() if "flow-run" in line]
    assert "completed" in run and continued.run in run
    for journal in continued.journals:
        monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", journal.url)
        out = ivcap_flows("trace", continued.report).out
        assert continued.series in out and out.index("reporting") < out.index("cleaning")
        told = ivcap_flows("trace", continued.run, "--json").json
        [run] = [record for record in told if record["id"] == continued.run]
        assert run["attributes"]["outcome"] == "completed"
        steps = {record["attributes"]["name"] for record in told if record["type"] == "task-run"}
        assert steps == {"cleaning", "reporting"}


def test_each_journal_renews_its_own_part(continued, tmp_path):
    """Delivered again with more known, it takes the place of its own older part, and of no other. In a folder, each has
    a file of its own."""
    journals, run = continued.journals, continued.run.rpartition(":")[2]
    for journal in journals:
        deliver(journal)
        deliver(journal, FolderSink(tmp_path / "delivered"))
    names = {f"{run}.{journal.id}.prov.json" for journal in journals}
    assert {file.name for file in (tmp_path / "delivered").iterdir()} == names
    journals[0].facts.append([Fact(entity("urn:x:more", "entity"), run)])
    deliver(journals[0])

    async def stated() -> list[str]:
        async with IvcapCredentials.from_environment().get_client() as client:
            return [str(each.content) async for each in client.aspects.list(entity=continued.run)]

    parts = sorted(loop.run(stated()), key=lambda part: continued.report in part)
    assert ["urn:x:more" in part for part in parts] == [True, False]
