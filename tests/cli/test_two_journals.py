"""One run, continued on a second machine that has a journal of its own: what is delivered of it is told together."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation
from ivcap_flows.sinks import FolderSink, IvcapSink, Sink, drain


@dataclass
class Machine:
    """A journal, and the step of the run that it has on record."""

    journal: Journal
    step: str
    run: str = ""

    def run_step(self, root: str, used: str, made: str, outcome: str) -> None:
        """An attempt of the run of the Prefect flow run `root`, which makes `made` of `used`."""
        identity = RunIdentity("coastal", "/a.py:f", {}, root, root, deployed=True)
        opened = self.journal.runs.open_attempt(identity)
        self.run = flows_urn("run", opened.run.id)
        attempt, step = flows_urn("attempt", opened.attempt.id), flows_urn("task-run", str(uuid.uuid4()))
        began = opened.attempt.started_at
        records = [
            activity(self.run, "flow-run", began, name="coastal"),
            activity(attempt, "attempt", began, name="coastal", number=opened.attempt.number),
            relation("wasStartedBy", attempt, self.run),
            activity(step, "task-run", began, name=self.step),
            relation("wasStartedBy", step, attempt),
            *(entity(each, "artifact") for each in (used, made)),
            relation("used", step, used),
            relation("wasGeneratedBy", made, step),
        ]
        ended = self.journal.now()
        records.append(activity(attempt, "attempt", began, ended, outcome=outcome))
        records.append(activity(self.run, "flow-run", began, ended, outcome=outcome))
        self.journal.facts.append([Fact(each, opened.run.id, opened.attempt.id) for each in records])
        self.journal.runs.close_attempt(opened.attempt.id, outcome)

    def deliver(self, *sinks: Callable[[Journal], Sink]) -> None:
        for make in sinks:
            [report] = drain(self.journal, [make(self.journal)], again=True)
            assert (report.pending, report.dead) == (0, 0)


@dataclass
class Continued:
    """A run whose first machine cleaned `series` into `clean`, and whose second made `report` of that."""

    first: Machine
    second: Machine
    series: str
    clean: str
    report: str

    @property
    def run(self) -> str:
        assert self.first.run == self.second.run
        return self.first.run


@pytest.fixture
def continued(tmp_path: Path) -> Iterator[Continued]:
    root = str(uuid.uuid4())
    series, clean, report = (f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(3))
    with contextlib.ExitStack() as stack:
        machines = [
            Machine(stack.enter_context(Journal.open(f"sqlite:///{tmp_path / step}.sqlite")), step)
            for step in ("cleaning", "reporting")
        ]
        machines[0].run_step(root, series, clean, "failed")
        machines[1].run_step(root, clean, report, "completed")
        yield Continued(*machines, series, clean, report)


def to_ivcap(journal: Journal) -> Sink:
    return IvcapSink(IvcapCredentials.from_environment().get_client(), journal)


@pytest.mark.parametrize("last", ["first", "second"])
def test_the_platform_alone_tells_both_parts(ivcap_flows, embedded_platform, continued, last):
    """Whichever is delivered last: one chain from the report to the series, in one run that has completed."""
    machines = [continued.first, continued.second]
    for machine in machines if last == "second" else machines[::-1]:
        machine.deliver(to_ivcap)
    out = ivcap_flows("trace", continued.report).out
    chain = [continued.report, "reporting", continued.clean, "cleaning", continued.series]
    assert [out.index(text) for text in chain] == sorted(out.index(text) for text in chain)
    runs = [line for line in out.splitlines() if "flow-run" in line]
    assert len(runs) == 1 and "completed" in runs[0] and continued.run in runs[0]
    told = ivcap_flows("trace", continued.run).out
    assert "cleaning" in told and "reporting" in told


@pytest.mark.parametrize("own", ["first", "second"])
def test_a_machine_tells_of_the_part_that_another_has(ivcap_flows, embedded_platform, continued, monkeypatch, own):
    """Its journal has one attempt; of the run, and of what both attempts worked with, the platform tells the other."""
    for machine in (continued.second, continued.first):
        machine.deliver(to_ivcap)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", getattr(continued, own).journal.url)
    out = ivcap_flows("trace", continued.report).out
    assert continued.series in out and out.index("reporting") < out.index("cleaning")
    told = ivcap_flows("trace", continued.run, "--json").json
    [run] = [record for record in told if record["id"] == continued.run]
    assert run["attributes"]["outcome"] == "completed"
    assert {record["attributes"]["name"] for record in told if record["type"] == "task-run"} == {
        "cleaning",
        "reporting",
    }


def test_each_journal_renews_its_own_part(embedded_platform, continued):
    """Delivered again with more known, it takes the place of its own older part, and of no other."""
    for machine in (continued.first, continued.second):
        machine.deliver(to_ivcap)
    journal, run = continued.first.journal, continued.run.rpartition(":")[2]
    journal.facts.append([Fact(entity("urn:x:more", "entity"), run)])
    continued.first.deliver(to_ivcap)

    async def stated() -> list[str]:
        async with IvcapCredentials.from_environment().get_client() as client:
            return [str(each.content) async for each in client.aspects.list(entity=continued.run)]

    parts = loop.run(stated())
    assert len(parts) == 2
    assert ["urn:x:more" in part for part in sorted(parts, key=lambda part: continued.report in part)] == [True, False]


def test_a_folder_holds_a_file_for_each_journal(continued, tmp_path):
    """Two machines that deliver to one folder leave two files of one run."""
    folder = tmp_path / "delivered"
    for machine in (continued.first, continued.second):
        machine.deliver(lambda journal: FolderSink(folder))
    run = continued.run.rpartition(":")[2]
    assert {file.name for file in folder.iterdir()} == {
        f"{run}.{machine.journal.id}.prov.json" for machine in (continued.first, continued.second)
    }
