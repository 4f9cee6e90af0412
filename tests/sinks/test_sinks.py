"""What leaves the machine names nothing private; files of runs in a folder; registrations that were left in doubt."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from prov.model import ProvDocument

from ivcap_flows.handles import ModelRun
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, NewIntent, OpenedAttempt, RunIdentity
from ivcap_flows.provena.runs import JobRow
from ivcap_flows.provenance import Graph, activity, agent, entity, faults, relation
from ivcap_flows.sinks import Drained, FolderSink, ProvenaSink, drain, shareable

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)


def test_what_leaves_the_machine_names_no_user_path_or_address():
    """Local agents, hosts, absolute paths and e-mail addresses go; URLs and all else stay, and the graph is valid."""
    records = [
        activity("urn:a:1", "attempt", cause="no /home/zora/in.csv for zora@example.org at https://host/a/b, 1/2 done"),
        activity("urn:a:2", "attempt", cause="process 12 on zora-laptop.local is gone; last seen 2026-07-01"),
        activity("urn:t:1", "task-run", name="save", process="zora-laptop.local:12"),
        agent("urn:u:zora", "user", local=True),
        relation("wasAssociatedWith", "urn:a:1", "urn:u:zora"),
        entity(
            "urn:e:1", "parameters", values={"source": "/home/zora/data/in.csv", "w": "C:\\Users\\zora\\x.csv", "n": 3}
        ),
    ]
    shared = shareable(Graph(records))
    assert faults(shared) == []
    assert shared.nodes["urn:a:1"].attributes["cause"] == "no in.csv for <e-mail> at https://host/a/b, 1/2 done"
    assert shared.nodes["urn:a:2"].attributes["cause"] == "process 12 is gone; last seen 2026-07-01"
    assert shared.nodes["urn:e:1"].attributes["values"] == {"source": "in.csv", "w": "x.csv", "n": 3}
    assert "zora" not in str(shared.records)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file:///home/zora/proj/x.csv", "x.csv"),
        ("sqlite:////home/zora/journal.sqlite is busy", "journal.sqlite is busy"),
        ("No such file:/home/zora/x.csv", "No such file:x.csv"),
        ("host:/home/zora/x", "host:x"),
        ("/a/b:/home/zora/bin", "bin"),
        ("zora@cluster.example.org:/home/zora/repo.git", "<e-mail>:repo.git"),
        ("/home/zora", "~"),
        ("C:/Users/zora/x.csv", "x.csv"),
        ("git@github.com:org/repo.git", "git@github.com:org/repo.git"),
        ("numpy@1.26.0", "numpy@1.26.0"),
        ("https://host:8080/a/b?c=/d", "https://host:8080/a/b?c=/d"),
        ("http://[::1]/a/b", "http://[::1]/a/b"),
        ("urn:ivcap:artifact:1", "urn:ivcap:artifact:1"),
    ],
)
def test_what_names_a_place_or_a_person_is_told_from_what_does_not(text, told):
    """Paths in any dress go, and the names of repositories, versions and hosts of services stay."""
    [record] = shareable(Graph([activity("urn:a:1", "attempt", cause=text)])).nodes.values()
    assert record.attributes["cause"] == told


@pytest.fixture
def run(ivcap_journal) -> OpenedAttempt:
    """A run that has failed."""
    opened = ivcap_journal.runs.open_attempt(RunIdentity("coastal", "/a.py:f", {}, "f1", "f1"))
    urn = flows_urn("run", opened.run.id)
    ivcap_journal.facts.append([Fact(activity(urn, "flow-run", NOON, name="coastal"), opened.run.id)])
    ivcap_journal.runs.close_attempt(opened.attempt.id, "failed")
    return opened


def test_a_file_per_run_is_written_once_and_again_when_more_is_known(ivcap_journal, run, tmp_path):
    """The file is valid PROV; a second drain writes nothing; a new fact is delivered."""
    sink = FolderSink(tmp_path / "out" / "prov")
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    [file] = sink.folder.iterdir()
    assert file.name == f"{run.run.id}.{ivcap_journal.id}.prov.json"
    read = ProvDocument.deserialize(content=file.read_text(), format="json")
    assert flows_urn("run", run.run.id) in {r.identifier.uri for r in read.get_records() if r.identifier}
    file.unlink()
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name)]
    ivcap_journal.facts.append([Fact(entity("urn:x:1", "entity"), run.run.id)])
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    assert "urn:x:1" in file.read_text()


@pytest.mark.parametrize("form", ["prov-json", "prov-n", "turtle"])
def test_a_record_with_a_fact_missing_is_written_without_what_hung_on_it(ivcap_journal, run, tmp_path, form):
    """A call whose parent could not be recorded is there, and the start by the parent, of which nothing is, is not."""
    call, parent = (f"urn:ivcap-flows:call:{name}" for name in ("child", "lost-parent"))
    stated = [activity(call, "call", NOON, NOON), relation("wasStartedBy", call, parent)]
    ivcap_journal.facts.append([Fact(record, run.run.id) for record in stated])
    ivcap_journal.runs.count_missing(run.run.id, 1)
    sink = FolderSink(tmp_path, form)
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    [file] = tmp_path.glob(f"{run.run.id}.*")
    assert "child" in file.read_text() and "lost-parent" not in file.read_text()


SENT = {
    "workflow_template_id": "1/2",
    "inputs": [{"dataset_template_id": "1/3", "dataset_type": "DATA_STORE", "dataset_id": "1/4"}],
    "outputs": [],
    "annotations": {"ivcap-flows-key": "k1:a"},
    "display_name": "run",
    "description": "d",
    "associations": {"modeller_id": "1/5"},
    "start_time": 1,
    "end_time": 2,
}


class Provena:
    """What the sink asks of a Provena client, answered by the status of one job."""

    def __init__(self, status: str) -> None:
        self.status, self.visibility_delay, self.time = status, 0.0, None
        self.jobs, self.registry = SimpleNamespace(list=self._list), SimpleNamespace(list=self._nothing)

    async def platform(self) -> str:
        return "https://provena"

    async def _list(self, **_):
        result = {"record": {"id": "1/9", "record": SENT}} if self.status == "SUCCEEDED" else {"record": None}
        job = {"session_id": "s1", "job_sub_type": "MODEL_RUN_PROV_LODGE", "payload": {"record": SENT}}
        yield JobRow(**job, status=self.status, result=result if self.status == "SUCCEEDED" else None)

    async def _nothing(self, *_, **__):
        return
        yield


def a_registration(journal: Journal, opened: OpenedAttempt, progress):
    request = {"subject": "urn:ivcap:order:1", "workflow-template": "1/2"}
    platform = {"platform": "https://provena", "account": "zora", "scope": "account:zora"}
    of_run = {"run_id": opened.run.id, "attempt_id": opened.attempt.id}
    wanted = NewIntent(key="k1:a", base_key="k1:a", noun="model run", request=request, **platform, **of_run)
    intent = journal.intents.mark_sent(journal.intents.claim(wanted).intent)
    return journal.intents.progress(intent, progress) if progress else intent


@pytest.mark.parametrize("progress", [None, {"session_id": "s1"}])
def test_a_registration_that_was_not_seen_lodged_is_found(ivcap_journal, run, progress):
    """By its key or its session the model run is found and noted; the task that asks again gets it. Nothing is taken
    from a live process that holds the claim."""
    intent = a_registration(ivcap_journal, run, progress)
    assert drain(ivcap_journal, [ProvenaSink(Provena("SUCCEEDED"), ivcap_journal)]) == [Drained("provena", pending=1)]
    assert ivcap_journal.intents.get("k1:a").state == "sent"
    ivcap_journal.intents.release(intent)
    for status, drained in (("PENDING", Drained("provena", pending=1)), ("SUCCEEDED", Drained("provena", delivered=1))):
        assert drain(ivcap_journal, [ProvenaSink(Provena(status), ivcap_journal)], again=True) == [drained]
        [row] = ivcap_journal.deliveries.where("provena")
        assert status == "SUCCEEDED" or "k1:a" in row.reason
    found = ivcap_journal.intents.get("k1:a")
    assert (found.state, found.urn, found.how) == ("done", "1/9", "adopted")
    handle = ModelRun.model_validate(found.outcome)
    assert (handle.subject, handle.inputs, handle.key) == ("urn:ivcap:order:1", ("1/4",), "k1:a")
