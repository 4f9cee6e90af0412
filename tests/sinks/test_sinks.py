"""Deliveries: delivered exactly once, by key, retried, refused, shared between drainers; nothing private leaves the
machine.
"""

import asyncio
import json
import uuid
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from prov.model import ProvDocument

from ivcap_flows import loop
from ivcap_flows.durable import heartbeat
from ivcap_flows.errors import BadRequestError, UnreachableError
from ivcap_flows.handles import ModelRun
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.identity import flows_urn
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Fact, Journal, NewIntent, OpenedAttempt, RunIdentity
from ivcap_flows.provena.runs import JobRow
from ivcap_flows.provenance import Graph, activity, agent, entity, faults, relation
from ivcap_flows.sinks import RUN_SCHEMA, Delivery, Drained, FolderSink, IvcapSink, ProvenaSink, drain, shareable
from ivcap_flows.sinks.base import TRIAL

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)


def a_run(journal: Journal, root: str = "f1", outcome: str = "completed") -> OpenedAttempt:
    opened = journal.runs.open_attempt(RunIdentity("coastal", "/home/zora/a.py:f", {"root": root}, root, root))
    run, attempt = flows_urn("run", opened.run.id), flows_urn("attempt", opened.attempt.id)
    user = flows_urn("user", "zora")
    records = [
        activity(run, "flow-run", NOON, name="coastal"),
        activity(attempt, "attempt", NOON, cause="no /home/zora/in.csv for zora@example.org at https://host/a/b"),
        relation("wasStartedBy", attempt, run),
        agent(user, "user", name="zora", local=True),
        relation("wasAssociatedWith", attempt, user),
        entity("urn:ivcap-flows:file:sha256:" + "ab" * 32, "file", sha256="ab" * 32, path="/home/zora/in.csv"),
        relation("used", attempt, "urn:ivcap-flows:file:sha256:" + "ab" * 32),
    ]
    journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    if outcome != "running":
        journal.runs.close_attempt(opened.attempt.id, outcome)
    return opened


class Scripted:
    """A sink that answers as it is told and keeps what it was given."""

    def __init__(self, *answers, name: str = "scripted") -> None:
        self.answers, self.name, self.got = list(answers), name, []

    async def deliver(self, run, graph) -> Delivery:
        self.got.append(run.id)
        answer = self.answers.pop(0) if self.answers else Delivery("delivered")
        if isinstance(answer, Exception):
            raise answer
        return answer


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


def test_a_drainer_beats_while_it_delivers(ivcap_journal, monkeypatch):
    """A slow delivery keeps its lease: another machine sees by the heartbeat that the drainer lives."""
    # Another test's heartbeats may go on already, at other times.
    monkeypatch.setattr(heartbeat, "_thread", None)
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)
    attempt = a_run(ivcap_journal).attempt
    heartbeats = []

    class Slow(Scripted):
        async def deliver(self, run, graph):
            for _ in range(2):
                heartbeats.append(ivcap_journal.runs.attempt(attempt.id).process.heartbeat_at)
                await asyncio.sleep(0.3)
            return Delivery("delivered")

    drain(ivcap_journal, [Slow()])
    assert heartbeats[1] > heartbeats[0]


def test_a_file_per_run_is_written_once_and_again_when_more_is_known(ivcap_journal, tmp_path):
    """The file is valid PROV; a second drain writes nothing; a new fact is delivered."""
    opened, sink = a_run(ivcap_journal), FolderSink(tmp_path / "out" / "prov")
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    [file] = sink.folder.iterdir()
    assert file.name == f"{opened.run.id}.{ivcap_journal.id}.prov.json"
    read = ProvDocument.deserialize(content=file.read_text(), format="json")
    assert flows_urn("run", opened.run.id) in {r.identifier.uri for r in read.get_records() if r.identifier}
    file.unlink()
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name)]
    ivcap_journal.facts.append([Fact(entity("urn:x:1", "entity"), opened.run.id)])
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    assert "urn:x:1" in file.read_text()


@pytest.mark.parametrize("form", ["prov-json", "prov-n", "turtle"])
def test_a_record_with_a_fact_missing_is_written_without_what_hung_on_it(ivcap_journal, tmp_path, form):
    """A call whose parent could not be recorded is there, and the start by the parent, of which nothing is, is not."""
    opened = a_run(ivcap_journal)
    call, parent = (f"urn:ivcap-flows:call:{name}" for name in ("child", "lost-parent"))
    stated = [activity(call, "call", NOON, NOON), relation("wasStartedBy", call, parent)]
    ivcap_journal.facts.append([Fact(record, opened.run.id) for record in stated])
    ivcap_journal.runs.count_missing(opened.run.id, 1)
    sink = FolderSink(tmp_path, form)
    assert drain(ivcap_journal, [sink]) == [Drained(sink.name, delivered=1)]
    [file] = tmp_path.glob(f"{opened.run.id}.*")
    assert "child" in file.read_text() and "lost-parent" not in file.read_text()


def test_a_running_run_waits_for_its_end(ivcap_journal):
    """Only runs that ended or parked are delivered."""
    opened, sink = a_run(ivcap_journal, outcome="running"), Scripted()
    assert drain(ivcap_journal, [sink]) == [Drained("scripted")]
    ivcap_journal.runs.close_attempt(opened.attempt.id, "parked")
    assert drain(ivcap_journal, [sink]) == [Drained("scripted", delivered=1)]


def test_a_sink_that_is_down_costs_two_tries_and_does_not_hold_the_others(ivcap_journal):
    """Two failures in a row end the pass; the other sink gets all; when their time has come the rest follows."""
    for root in ("f1", "f2", "f3"):
        a_run(ivcap_journal, root)
    down, other = Scripted(*[UnreachableError("no route")] * 2), Scripted(name="other")
    assert drain(ivcap_journal, [down, other]) == [Drained("scripted", pending=3), Drained("other", delivered=3)]
    assert len(down.got) == 2
    rows = ivcap_journal.deliveries.where("scripted")
    assert [(row.state, row.reason, row.tries) for row in rows] == [("pending", "no route", 1)] * 2
    for row in rows:
        assert timedelta(0) < row.next_try - datetime.now(timezone.utc) < timedelta(seconds=16)
    assert drain(ivcap_journal, [down]) == [Drained("scripted", delivered=1, pending=2)]
    assert drain(ivcap_journal, [down], again=True) == [Drained("scripted", delivered=2)]


def test_a_refusal_is_a_dead_letter_with_its_reason(ivcap_journal):
    """What the sink refuses is not tried again by itself; the reason is kept; `again` tries it."""
    a_run(ivcap_journal)
    sink = Scripted(BadRequestError("licence is missing"), Delivery("dead", "still missing"))
    assert drain(ivcap_journal, [sink]) == [Drained("scripted", dead=1)]
    assert drain(ivcap_journal, [sink]) == [Drained("scripted", dead=1)]
    assert len(sink.got) == 1
    [row] = ivcap_journal.deliveries.where("scripted", state="dead")
    assert row.reason == "licence is missing. When that is corrected, run `ivcap-flows sync --again`."
    assert drain(ivcap_journal, [sink], again=True) == [Drained("scripted", dead=1)]
    assert drain(ivcap_journal, [sink], again=True) == [Drained("scripted", delivered=1)]


def test_a_later_delivery_includes_what_was_refused_before(ivcap_journal):
    """Once the sink has a run with its newest facts, nothing older of it is left over."""
    opened, sink = a_run(ivcap_journal), Scripted(BadRequestError("no"))
    drain(ivcap_journal, [sink])
    ivcap_journal.facts.append([Fact(entity("urn:x:1", "entity"), opened.run.id)])
    assert drain(ivcap_journal, [sink]) == [Drained("scripted", delivered=1)]
    assert {row.state for row in ivcap_journal.deliveries.where("scripted")} == {"delivered"}


def test_two_drainers_share_a_sink(ivcap_journal):
    """While one drains a sink the other passes it by."""
    a_run(ivcap_journal)
    sink = Scripted()
    with ivcap_journal.deliveries.lease("scripted") as mine:
        assert mine
        assert drain(ivcap_journal, [sink]) == [Drained("scripted", busy=True)]
    assert drain(ivcap_journal, [sink]) == [Drained("scripted", delivered=1)]


def test_a_run_is_one_aspect_on_ivcap(ivcap_journal, embedded_platform, monkeypatch):
    """Delivered again it is the same aspect; with more known a newer one takes its place; nothing private is in it."""
    import os

    opened = a_run(ivcap_journal)
    client = IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"]))
    sink, urn = IvcapSink(client, ivcap_journal), flows_urn("run", opened.run.id)

    async def active():
        return [record async for record in client.aspects.list(entity=urn, schema=RUN_SCHEMA)]

    assert drain(ivcap_journal, [sink]) == [Drained("ivcap", delivered=1)]
    [first] = loop.run(active())
    read = ProvDocument.deserialize(content=json.dumps(first.content["prov"]), format="json")
    assert urn in {record.identifier.uri for record in read.get_records() if record.identifier}
    assert "zora" not in json.dumps(first.content)

    other = IvcapSink(client, ivcap_journal, name="another drainer")
    assert drain(ivcap_journal, [other]) == [Drained("another drainer", delivered=1)]
    assert [record.urn for record in loop.run(active())] == [first.urn]

    ivcap_journal.facts.append([Fact(entity("urn:x:1", "entity"), opened.run.id)])
    drain(ivcap_journal, [sink])
    [second] = loop.run(active())
    assert second.urn != first.urn
    loop.run(client.aclose())


def test_a_trial_on_another_embedded_platform_is_told_to_nobody(ivcap_journal, embedded_platform):
    """A run that used another embedded platform leaves no record on this one; the outbox has done with it."""
    import os

    opened = a_run(ivcap_journal, str(uuid.uuid4()))
    elsewhere = "urn:ivcap-flows:embedded:another"
    ivcap_journal.facts.append([Fact(entity("urn:ivcap:artifact:1", "artifact", platform=elsewhere), opened.run.id)])
    client = IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"]))
    [drained] = drain(ivcap_journal, [IvcapSink(client, ivcap_journal)])
    assert drained == Drained("ivcap", delivered=1) and drained.reasons == {TRIAL: 1}

    async def active():
        return [record async for record in client.aspects.list(entity=flows_urn("run", opened.run.id))]

    assert loop.run(active()) == []
    loop.run(client.aclose())


def test_ivcap_being_away_is_a_pending_delivery(ivcap_journal):
    """A connection that is refused leaves the run for later."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    a_run(ivcap_journal)
    client = IvcapClient(url, StaticToken("token-1234"), budget=0.2)
    assert drain(ivcap_journal, [IvcapSink(client, ivcap_journal)]) == [Drained("ivcap", pending=1)]
    [row] = ivcap_journal.deliveries.where("ivcap")
    assert "token-1234" not in row.reason
    loop.run(client.aclose())


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
    """What the sink asks of a Provena client, answered from rows of the job API."""

    def __init__(self, *rows: JobRow) -> None:
        self.rows = rows
        self.jobs = SimpleNamespace(list=self._list)
        self.registry = SimpleNamespace(list=self._nothing)
        self.visibility_delay = 0.0
        self.time = None

    async def platform(self) -> str:
        return "https://provena"

    async def _list(self, **_):
        for row in self.rows:
            yield row

    async def _nothing(self, *_, **__):
        return
        yield


def a_registration(journal: Journal, opened: OpenedAttempt, *, progress=None):
    wanted = NewIntent(
        key="k1:a",
        base_key="k1:a",
        noun="model run",
        platform="https://provena",
        account="zora",
        scope="account:zora",
        request={"subject": "urn:ivcap:order:1", "workflow-template": "1/2"},
        run_id=opened.run.id,
        attempt_id=opened.attempt.id,
    )
    intent = journal.intents.mark_sent(journal.intents.claim(wanted).intent)
    return journal.intents.progress(intent, progress) if progress else intent


def a_job(status: str) -> JobRow:
    record = {"id": "1/9", "record": SENT} if status == "SUCCEEDED" else None
    return JobRow(
        session_id="s1",
        job_sub_type="MODEL_RUN_PROV_LODGE",
        status=status,
        payload={"record": SENT},
        result={"record": record} if record else None,
    )


@pytest.mark.parametrize("progress", [None, {"session_id": "s1"}])
def test_a_registration_that_was_not_seen_lodged_is_found(ivcap_journal, progress):
    """By its key or its session the model run is found and noted; the task that asks again gets it."""
    opened = a_run(ivcap_journal, outcome="failed")
    intent = a_registration(ivcap_journal, opened, progress=progress)
    ivcap_journal.intents.release(intent)
    waiting = ProvenaSink(Provena(a_job("PENDING")), ivcap_journal)
    assert drain(ivcap_journal, [waiting]) == [Drained("provena", pending=1)]
    [row] = ivcap_journal.deliveries.where("provena")
    assert "k1:a" in row.reason

    lodged = ProvenaSink(Provena(a_job("SUCCEEDED")), ivcap_journal)
    assert drain(ivcap_journal, [lodged], again=True) == [Drained("provena", delivered=1)]
    found = ivcap_journal.intents.get("k1:a")
    assert (found.state, found.urn, found.how) == ("done", "1/9", "adopted")
    handle = ModelRun.model_validate(found.outcome)
    assert (handle.subject, handle.inputs, handle.key) == ("urn:ivcap:order:1", ("1/4",), "k1:a")


def test_a_registration_at_work_is_left_to_its_process(ivcap_journal):
    """While a live process holds the claim nothing is taken from it."""
    opened = a_run(ivcap_journal)
    intent = a_registration(ivcap_journal, opened)
    sink = ProvenaSink(Provena(a_job("SUCCEEDED")), ivcap_journal)
    assert drain(ivcap_journal, [sink]) == [Drained("provena", pending=1)]
    assert ivcap_journal.intents.get("k1:a").state == "sent"
    ivcap_journal.intents.release(intent)


def test_a_run_without_registrations_has_nothing_for_provena(ivcap_journal):
    """No request is made for it."""
    a_run(ivcap_journal)
    sink = ProvenaSink(SimpleNamespace(), ivcap_journal)
    assert drain(ivcap_journal, [sink]) == [Drained("provena", delivered=1)]
