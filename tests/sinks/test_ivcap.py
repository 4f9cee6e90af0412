"""Records of runs and links to them on IVCAP: once each, whatever was lost on the way, and nothing private."""

import asyncio
import json
import os
import uuid
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from prov.model import ProvDocument

from ivcap_flows import loop
from ivcap_flows.errors import ForbiddenError, UnreachableError
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.identity import canonical, digest, flows_urn
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Fact, RunIdentity
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance import Graph, activity, agent, entity, faults, relation
from ivcap_flows.sinks import LINK_SCHEMA, RUN_SCHEMA, Drained, IvcapSink, drain, parts_by_run, shareable
from ivcap_flows.sinks import ivcap as module
from ivcap_flows.sinks.base import TRIAL
from ivcap_flows.sinks.ivcap import SCHEMAS

DELIVERED, PENDING, DEAD = (Drained("ivcap", **{state: 1}) for state in ("delivered", "pending", "dead"))


@pytest.fixture
def client(embedded_platform):
    made = IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"]), budget=0.3)
    yield made
    loop.run(made.aclose())


@pytest.fixture
def artifacts():
    """URNs that no other test has: one is used, one made, one both."""
    used, made, both = (f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(3))
    return used, made, both


@pytest.fixture
def run(ivcap_journal, artifacts):
    """A run that has ended, which used and made artifacts, and a file that is none."""
    root = str(uuid.uuid4())
    opened = ivcap_journal.runs.open_attempt(RunIdentity("coastal", "/a.py:f", {}, root, root))
    urn, file = flows_urn("run", root), "urn:ivcap-flows:file:sha256:" + "ab" * 32
    elsewhere = f"urn:ivcap:artifact:{uuid.uuid4()}"
    used, made, both = artifacts
    records = [
        activity(urn, "flow-run", opened.run.created_at, name="coastal", cause="no /home/zora/in.csv"),
        agent("urn:ivcap-flows:user:zora", "user", name="zora", local=True),
        relation("wasAssociatedWith", urn, "urn:ivcap-flows:user:zora"),
        *(entity(each, "artifact") for each in artifacts),
        entity(elsewhere, "artifact", platform="https://another.example"),
        entity(file, "file"),
        *(relation("used", urn, each) for each in (used, both, file, elsewhere)),
        *(relation("wasGeneratedBy", each, urn) for each in (made, both)),
    ]
    ivcap_journal.facts.append([Fact(record, root) for record in records])
    ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
    return ivcap_journal.runs.get(root)


@pytest.fixture
def deliver(ivcap_journal, client):
    """Delivers all runs, by a sink of this name."""

    def drained(name: str = "ivcap") -> Drained:
        [one] = drain(ivcap_journal, [IvcapSink(client, ivcap_journal, name)], again=True)
        return one

    return drained


@pytest.fixture
def on_add(client, monkeypatch):
    """Has a function called with the entity before each aspect is added."""
    add = client.aspects.add

    def replace(before: Any) -> None:
        async def adding(entity, schema, content):
            await before(entity)
            return await add(entity, schema, content)

        monkeypatch.setattr(client.aspects, "add", adding)

    return replace


def active(client: IvcapClient, entity: str, schema: str) -> list[dict]:
    async def read():
        return [record.content async for record in client.aspects.list(entity=entity, schema=schema)]

    return loop.run(read())


def added(embedded) -> int:
    return len([r for r in embedded.requests("POST", "/1/aspects$") if r["status"] == 200])


def test_each_artifact_is_linked_to_the_run(embedded_platform, deliver, client, run, artifacts):
    """One small aspect each with what the run did; all contents are as documented; delivered again nothing is sent. Of
    two equal records, as two drainers of one journal leave them that both found none, the first stays."""
    assert deliver() == DELIVERED
    urn = flows_urn("run", run.id)
    roles = []
    for artifact in artifacts:
        [link] = active(client, artifact, LINK_SCHEMA)
        jsonschema.validate(link, SCHEMAS[LINK_SCHEMA])
        assert (link["run"], link["flow"]) == (urn, "coastal")
        roles.append(link["roles"])
    assert roles == [["used"], ["generated"], ["generated", "used"]]
    [record] = active(client, urn, RUN_SCHEMA)
    jsonschema.validate(record, SCHEMAS[RUN_SCHEMA])
    read = ProvDocument.deserialize(content=json.dumps(record["prov"]), format="json")
    assert urn in {each.identifier.uri for each in read.get_records() if each.identifier}
    assert "zora" not in json.dumps(record)
    assert added(embedded_platform) == 4
    loop.run(client.aspects.add(urn, RUN_SCHEMA, record))
    assert deliver("again") == Drained("again", delivered=1)
    assert added(embedded_platform) == 5 and active(client, urn, RUN_SCHEMA) == [record]


def test_a_link_says_what_is_known_now(ivcap_journal, deliver, client, run, artifacts):
    """When a later attempt also makes what was used, a newer link takes the place of the older; others stay."""
    deliver()
    urn, used, other = flows_urn("run", run.id), artifacts[0], "urn:ivcap-flows:run:other"
    loop.run(client.aspects.add(used, LINK_SCHEMA, {"run": other, "journal": "other", "roles": ["used"]}))
    ivcap_journal.facts.append([Fact(relation("wasGeneratedBy", used, urn), run.id)])
    assert deliver() == DELIVERED
    assert len(active(client, urn, RUN_SCHEMA)) == 1
    links = {link["run"]: link["roles"] for link in active(client, used, LINK_SCHEMA)}
    assert links == {urn: ["generated", "used"], other: ["used"]}
    parts = loop.run(parts_by_run(client.aspects, used, LINK_SCHEMA))
    assert {name: [record.content["roles"] for record in of.values()] for name, of in parts.items()} == {
        name: [roles] for name, roles in links.items()
    }


def test_what_newer_code_says_of_a_run_is_kept(ivcap_journal, deliver, client, run, artifacts):
    """A field that this code does not know stays when it writes the record anew, and is no reason to do so."""
    deliver()
    urn, used = flows_urn("run", run.id), artifacts[0]
    newer = {"version": 2, "mood": "new"}
    for about, schema, more in ((urn, RUN_SCHEMA, {"sha256": "0" * 64}), (used, LINK_SCHEMA, {})):
        [content] = active(client, about, schema)
        assert content["version"] == 1
        loop.run(client.aspects.add(about, schema, {**content, **newer, **more}))
    ivcap_journal.facts.append([Fact(relation("wasGeneratedBy", used, urn), run.id)])
    assert deliver() == DELIVERED
    [record], [link] = active(client, urn, RUN_SCHEMA), active(client, used, LINK_SCHEMA)
    assert record["mood"] == link["mood"] == "new" and link["roles"] == ["generated", "used"]
    jsonschema.validate(record, SCHEMAS[RUN_SCHEMA])
    assert record["sha256"] == digest(canonical({name: each for name, each in record.items() if name != "sha256"}))
    assert deliver("again") == Drained("again", delivered=1) and active(client, urn, RUN_SCHEMA) == [record]


@pytest.mark.parametrize(
    ("hours", "when"),
    [
        (-3.0, "before the run"),
        *(
            pytest.param(hours, when, marks=pytest.mark.long)
            for hours, when in [
                (0.0, "before the run"),
                *((hours, "before the run") for hours in (-1 / 6, 1 / 6, 3.0)),
                *((hours, "before the next pass") for hours in (-3.0, -1 / 6, 1 / 6, 3.0)),
            ]
        ),
    ],
)
def test_what_shows_late_is_not_sent_twice_whatever_the_clock_shows(
    embedded_platform, request, monkeypatch, hours, when
):
    """The replies are lost and the records hidden: the next pass waits until they must show, and finds them. The
    journal's clock may be off from the start, or be set between the passes."""
    now = Store.now

    def set_clock():
        monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + timedelta(hours=hours))

    if when == "before the run":
        set_clock()
    journal, client, run, deliver = (
        request.getfixturevalue(name) for name in ("ivcap_journal", "client", "run", "deliver")
    )
    loop.run(client.platform())
    client.visibility_delay = 1.0
    monkeypatch.setattr(module, "NOTE_SECONDS", 0.1)
    embedded_platform.add_fault(method="POST", path="^/1/aspects", drop_reply_after_effect=True, late_visibility=0.8)
    assert deliver() == PENDING
    embedded_platform.clear_faults()
    set_clock()
    assert deliver() == DELIVERED
    assert deliver() == Drained("ivcap")
    assert added(embedded_platform) == 4
    assert len(active(client, flows_urn("run", run.id), RUN_SCHEMA)) == 1
    assert journal.deliveries.sending("ivcap", run.id) is None


def test_what_may_still_show_is_left_for_later(embedded_platform, ivcap_journal, deliver, client, run):
    """Where a platform takes minutes to show what it took, the delivery waits in the journal and says until when."""
    loop.run(client.platform())
    client.visibility_delay = 120.0
    ivcap_journal.deliveries.note_sending("ivcap", run.id, client.time)
    assert deliver() == PENDING
    [row] = ivcap_journal.deliveries.where("ivcap")
    assert "may still appear" in row.reason
    assert timedelta(seconds=110) < row.next_try - ivcap_journal.now() <= timedelta(seconds=121)
    assert added(embedded_platform) == 0


def test_what_was_sent_last_is_waited_for(ivcap_journal, deliver, on_add, run, monkeypatch):
    """The note of a sending is as new as its last requests: while they go, and when one of them is not answered."""
    notes, last = [], []

    async def slow(entity):
        begun = ivcap_journal.now()
        for _ in range(200):
            await asyncio.sleep(0.05)
            if ivcap_journal.deliveries.sending("ivcap", run.id).sent_at > begun:
                notes.append(entity)
                break
        if len(notes) == 4:
            last.append(ivcap_journal.now())
            raise UnreachableError("no reply")

    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "NOTE_SECONDS", 0.05)
    on_add(slow)
    assert deliver() == PENDING
    assert len(notes) == 4
    assert ivcap_journal.deliveries.sending("ivcap", run.id).sent_at >= last[0]


def test_an_artifact_that_may_not_be_linked_is_named(ivcap_journal, deliver, client, on_add, run, artifacts):
    """The run's record and the other links are there; the refusal is a dead letter until it is tried again."""
    refused = [artifacts[1]]

    async def guarded(entity):
        if entity in refused:
            raise ForbiddenError("Not yours.")

    on_add(guarded)
    assert deliver() == DEAD
    [row] = ivcap_journal.deliveries.where("ivcap")
    assert row.reason.startswith(f"{artifacts[1]} could not be linked to the run: Not yours.")
    assert [len(active(client, urn, LINK_SCHEMA)) for urn in artifacts] == [1, 0, 1]
    assert len(active(client, flows_urn("run", run.id), RUN_SCHEMA)) == 1
    refused.clear()
    assert deliver() == DELIVERED


def test_what_fails_leaves_nothing_running(deliver, on_add, run, monkeypatch):
    """When one of several requests finds no platform, the others are not sent behind the back of the outbox."""
    started = []

    async def away(entity):
        started.append(entity)
        raise UnreachableError("no route")

    monkeypatch.setattr(module, "AT_ONCE", 1)
    on_add(away)
    assert deliver() == PENDING and len(started) == 1


def test_a_trial_on_another_embedded_platform_is_told_to_nobody(ivcap_journal, deliver, client, run):
    """A run that used another embedded platform leaves no record on this one; the outbox has done with it."""
    elsewhere = "urn:ivcap-flows:embedded:another"
    ivcap_journal.facts.append([Fact(entity("urn:ivcap:artifact:1", "artifact", platform=elsewhere), run.id)])
    drained = deliver()
    assert drained == DELIVERED and drained.reasons == {TRIAL: 1}
    assert active(client, flows_urn("run", run.id), RUN_SCHEMA) == []


def test_what_leaves_the_machine_names_no_user_path_or_address():
    """Local agents and hosts go, and paths within values, and the graph is valid."""
    records = [
        activity("urn:a:1", "attempt", cause="no /home/zora/in.csv for zora@example.org at https://host/a/b, 1/2 done"),
        activity("urn:a:2", "attempt", cause="process 12 on zora-laptop.local is gone; last seen 2026-07-01"),
        activity("urn:t:1", "task-run", name="save", process="zora-laptop.local:12"),
        agent("urn:u:zora", "user", local=True),
        relation("wasAssociatedWith", "urn:a:1", "urn:u:zora"),
        entity("urn:e:1", "parameters", values={"source": "/home/zora/in.csv", "w": "C:\\Users\\zora\\x.csv", "n": 3}),
    ]
    shared = shareable(Graph(records))
    assert faults(shared) == []
    assert shared.nodes["urn:a:1"].attributes["cause"] == "no in.csv for <e-mail> at https://host/a/b, 1/2 done"
    assert shared.nodes["urn:a:2"].attributes["cause"] == "process 12 is gone; last seen 2026-07-01"
    assert shared.nodes["urn:e:1"].attributes["values"] == {"source": "in.csv", "w": "x.csv", "n": 3}
    assert "zora" not in str(shared.records)


def test_what_paths_name_is_kept_though_they_end_alike():
    """Of several keys that only their folders tell apart, each has a number."""
    values = {"/a/b/out.csv": 1, "/a/c/out.csv": 2, "out.csv": 3, "/a/in.csv": 4, "/a/d/out.csv": 5}
    [record] = shareable(Graph([entity("urn:e:1", "parameters", values=values)])).nodes.values()
    shared = {"out.csv": 1, "out.csv (2)": 2, "out.csv (3)": 3, "in.csv": 4, "out.csv (4)": 5}
    assert record.attributes["values"] == shared


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
        *((text, text) for text in ("git@github.com:org/repo.git", "numpy@1.26.0", "urn:ivcap:artifact:1")),
        *((url, url) for url in ("https://host:8080/a/b?c=/d", "http://[::1]/a/b")),
    ],
)
def test_what_names_a_place_or_a_person_is_told_from_what_does_not(text, told):
    """Paths in any dress go, and the names of repositories, versions and hosts of services stay."""
    [record] = shareable(Graph([activity("urn:a:1", "attempt", cause=text)])).nodes.values()
    assert record.attributes["cause"] == told
