"""Records of runs and links to them on IVCAP: once each, whatever was lost on the way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import jsonschema
import pytest
from prov.model import ProvDocument

from ivcap_flows import loop
from ivcap_flows.errors import ForbiddenError, UnreachableError
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.identity import flows_urn
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import Fact, Journal, RunIdentity, RunRow
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance import activity, agent, entity, relation
from ivcap_flows.sinks import LINK_SCHEMA, RUN_SCHEMA, Drained, IvcapSink, drain, parts_by_run
from ivcap_flows.sinks.base import TRIAL
from ivcap_flows.sinks.ivcap import SCHEMAS


@pytest.fixture
def client(embedded_platform) -> Iterator[IvcapClient]:
    made = IvcapClient(os.environ["IVCAP_URL"], StaticToken(os.environ["IVCAP_JWT"]), budget=0.3)
    yield made
    loop.run(made.aclose())


@pytest.fixture
def artifacts() -> tuple[str, str, str]:
    """URNs that no other test has: one is used, one made, one both."""
    used, made, both = (f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(3))
    return used, made, both


@pytest.fixture
def run(ivcap_journal: Journal, artifacts: tuple[str, str, str]) -> RunRow:
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


def active(client: IvcapClient, entity: str, schema: str) -> list[dict]:
    async def read():
        return [record.content async for record in client.aspects.list(entity=entity, schema=schema)]

    return loop.run(read())


def added(embedded) -> int:
    return len([r for r in embedded.requests("POST", "/1/aspects") if r["status"] == 200])


def test_each_artifact_is_linked_to_the_run(embedded_platform, ivcap_journal, client, run, artifacts):
    """One small aspect each with what the run did; all contents are as documented; delivered again nothing is sent."""
    assert drain(ivcap_journal, [IvcapSink(client, ivcap_journal)]) == [Drained("ivcap", delivered=1)]
    urn = flows_urn("run", run.id)
    roles = {}
    for artifact in artifacts:
        [link] = active(client, artifact, LINK_SCHEMA)
        jsonschema.validate(link, SCHEMAS[LINK_SCHEMA])
        assert (link["run"], link["flow"]) == (urn, "coastal")
        roles[artifact] = link["roles"]
    assert list(roles.values()) == [["used"], ["generated"], ["generated", "used"]]
    [record] = active(client, urn, RUN_SCHEMA)
    jsonschema.validate(record, SCHEMAS[RUN_SCHEMA])
    read = ProvDocument.deserialize(content=json.dumps(record["prov"]), format="json")
    assert urn in {each.identifier.uri for each in read.get_records() if each.identifier}
    assert "zora" not in json.dumps(record)
    assert added(embedded_platform) == 4
    assert drain(ivcap_journal, [IvcapSink(client, ivcap_journal, "again")]) == [Drained("again", delivered=1)]
    assert added(embedded_platform) == 4


def test_a_link_says_what_is_known_now(ivcap_journal, client, run, artifacts):
    """When a later attempt also makes what was used, a newer link takes the place of the older; others stay."""
    sink = IvcapSink(client, ivcap_journal)
    drain(ivcap_journal, [sink])
    urn, used = flows_urn("run", run.id), artifacts[0]
    loop.run(
        client.aspects.add(
            used, LINK_SCHEMA, {"run": "urn:ivcap-flows:run:other", "journal": "other", "roles": ["used"]}
        )
    )
    ivcap_journal.facts.append([Fact(relation("wasGeneratedBy", used, urn), run.id)])
    assert drain(ivcap_journal, [sink]) == [Drained("ivcap", delivered=1)]
    assert len(active(client, urn, RUN_SCHEMA)) == 1
    links = {link["run"]: link["roles"] for link in active(client, used, LINK_SCHEMA)}
    assert links == {urn: ["generated", "used"], "urn:ivcap-flows:run:other": ["used"]}
    parts = loop.run(parts_by_run(client.aspects, used, LINK_SCHEMA))
    assert {name: [record.content["roles"] for record in of.values()] for name, of in parts.items()} == {
        name: [roles] for name, roles in links.items()
    }


@pytest.mark.long
def test_what_shows_late_is_not_sent_twice(embedded_platform, ivcap_journal, client, run):
    """The replies are lost and the records hidden: the next pass waits until they must show, and finds them."""
    sink = IvcapSink(client, ivcap_journal)
    embedded_platform.add_fault(method="POST", path="^/1/aspects", drop_reply_after_effect=True, late_visibility=0.8)
    assert drain(ivcap_journal, [sink]) == [Drained("ivcap", pending=1)]
    embedded_platform.clear_faults()
    assert added(embedded_platform) == 4
    assert drain(ivcap_journal, [sink], again=True) == [Drained("ivcap", delivered=1)]
    assert added(embedded_platform) == 4
    assert len(active(client, flows_urn("run", run.id), RUN_SCHEMA)) == 1
    assert ivcap_journal.deliveries.sending("ivcap", run.id) is None


@pytest.mark.parametrize(
    "hours", [-3.0, *(pytest.param(each, marks=pytest.mark.long) for each in (-1 / 6, 1 / 6, 3.0))]
)
@pytest.mark.parametrize("when", ["before the run", pytest.param("before the next pass", marks=pytest.mark.long)])
def test_a_clock_that_is_wrong_sends_nothing_twice(embedded_platform, request, monkeypatch, hours, when):
    """The journal's clock is off from the start, or is set between two passes, and what was sent shows late."""
    now = Store.now

    def set_clock():
        monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + timedelta(hours=hours))

    if when == "before the run":
        set_clock()
    journal, client, run = (request.getfixturevalue(name) for name in ("ivcap_journal", "client", "run"))
    sink = IvcapSink(client, journal)
    embedded_platform.add_fault(method="POST", path="^/1/aspects", drop_reply_after_effect=True, late_visibility=0.8)
    assert drain(journal, [sink]) == [Drained("ivcap", pending=1)]
    embedded_platform.clear_faults()
    set_clock()
    assert drain(journal, [sink], again=True) == [Drained("ivcap", delivered=1)]
    assert drain(journal, [sink], again=True) == [Drained("ivcap", delivered=0)]
    assert added(embedded_platform) == 4
    assert len(active(client, flows_urn("run", run.id), RUN_SCHEMA)) == 1


def test_what_may_still_show_is_left_for_later(embedded_platform, ivcap_journal, client, run, monkeypatch):
    """Where a platform takes minutes to show what it took, the delivery waits in the journal and says until when."""
    sink = IvcapSink(client, ivcap_journal)
    loop.run(client.platform())
    client.visibility_delay = 120.0
    ivcap_journal.deliveries.note_sending("ivcap", run.id, client.time)
    assert drain(ivcap_journal, [sink], again=True) == [Drained("ivcap", pending=1)]
    [row] = ivcap_journal.deliveries.where("ivcap")
    assert "may still appear" in row.reason
    assert timedelta(seconds=110) < row.next_try - ivcap_journal.now() <= timedelta(seconds=121)
    assert added(embedded_platform) == 0


def test_what_was_sent_last_is_waited_for(ivcap_journal, client, run, monkeypatch):
    """The note of a sending is as new as its last requests: while they go, and when one of them is not answered."""
    loop.run(client.platform())
    notes, add = [], client.aspects.add

    async def slow(entity, schema, content, policy=None):
        begun, sending = ivcap_journal.now(), partial(ivcap_journal.deliveries.sending, "ivcap", run.id)
        for _ in range(200):
            await asyncio.sleep(0.05)
            if sending().sent_at > begun:
                break
        notes.append(sending().sent_at > begun)
        if len(notes) < 4:
            return await add(entity, schema, content, policy)
        last.append(ivcap_journal.now())
        raise UnreachableError("no reply")

    last = []
    monkeypatch.setattr("ivcap_flows.sinks.ivcap.AT_ONCE", 1)
    monkeypatch.setattr("ivcap_flows.sinks.ivcap.NOTE_SECONDS", 0.05)
    monkeypatch.setattr(client.aspects, "add", slow)
    assert drain(ivcap_journal, [IvcapSink(client, ivcap_journal)]) == [Drained("ivcap", pending=1)]
    assert notes == [True] * 4
    assert ivcap_journal.deliveries.sending("ivcap", run.id).sent_at >= last[0]


def test_doubles_are_cleared_away(ivcap_journal, client, run):
    """Of two equal records, as two drainers of one journal leave them that both found none, the first stays."""
    sink, urn = IvcapSink(client, ivcap_journal), flows_urn("run", run.id)
    drain(ivcap_journal, [sink])
    [content] = active(client, urn, RUN_SCHEMA)
    loop.run(client.aspects.add(urn, RUN_SCHEMA, content))
    assert drain(ivcap_journal, [IvcapSink(client, ivcap_journal, "again")]) == [Drained("again", delivered=1)]
    assert active(client, urn, RUN_SCHEMA) == [content]


def test_an_artifact_that_may_not_be_linked_is_named(ivcap_journal, client, run, artifacts, monkeypatch):
    """The run's record and the other links are there; the refusal is a dead letter until it is tried again."""
    sink, add = IvcapSink(client, ivcap_journal), client.aspects.add

    async def guarded(entity, schema, content, policy=None):
        if entity == artifacts[1]:
            raise ForbiddenError("Not yours.")
        return await add(entity, schema, content, policy)

    with monkeypatch.context() as patch:
        patch.setattr(client.aspects, "add", guarded)
        assert drain(ivcap_journal, [sink]) == [Drained("ivcap", dead=1)]
    [row] = ivcap_journal.deliveries.where("ivcap")
    assert row.reason.startswith(f"{artifacts[1]} could not be linked to the run: Not yours.")
    assert [len(active(client, urn, LINK_SCHEMA)) for urn in artifacts] == [1, 0, 1]
    assert len(active(client, flows_urn("run", run.id), RUN_SCHEMA)) == 1
    assert drain(ivcap_journal, [sink], again=True) == [Drained("ivcap", delivered=1)]


def test_a_trial_on_another_embedded_platform_is_told_to_nobody(ivcap_journal, client, run):
    """A run that used another embedded platform leaves no record on this one; the outbox has done with it."""
    elsewhere = "urn:ivcap-flows:embedded:another"
    ivcap_journal.facts.append([Fact(entity("urn:ivcap:artifact:1", "artifact", platform=elsewhere), run.id)])
    [drained] = drain(ivcap_journal, [IvcapSink(client, ivcap_journal)])
    assert drained == Drained("ivcap", delivered=1) and drained.reasons == {TRIAL: 1}
    assert active(client, flows_urn("run", run.id), RUN_SCHEMA) == []


def test_ivcap_being_away_is_a_pending_delivery(ivcap_journal, run):
    """A connection that is refused leaves the run for later, and the reason shows no token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = IvcapClient(f"http://127.0.0.1:{free.getsockname()[1]}", StaticToken("token-1234"), budget=0.2)
        assert drain(ivcap_journal, [IvcapSink(away, ivcap_journal)]) == [Drained("ivcap", pending=1)]
    [row] = ivcap_journal.deliveries.where("ivcap")
    assert "token-1234" not in row.reason
    loop.run(away.aclose())


def test_what_fails_leaves_nothing_running(ivcap_journal, client, run, monkeypatch):
    """When one of several requests finds no platform, the others are not sent behind the back of the outbox."""
    started = []

    async def away(entity, schema, content, policy=None):
        started.append(entity)
        raise UnreachableError("no route")

    monkeypatch.setattr("ivcap_flows.sinks.ivcap.AT_ONCE", 1)
    monkeypatch.setattr(client.aspects, "add", away)
    assert drain(ivcap_journal, [IvcapSink(client, ivcap_journal)]) == [Drained("ivcap", pending=1)]
    assert len(started) == 1
