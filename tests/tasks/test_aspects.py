"""Aspects as tasks: declared schemas, lists, retraction, and updates whose reply was lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from listings import all_of
from pydantic import BaseModel, ConfigDict, Field

from ivcap_flows.cli import main
from ivcap_flows.durable import plan
from ivcap_flows.errors import NotFoundError, SupersededError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.intents import Intents
from ivcap_flows.tasks import attach_aspect, get_aspect, list_aspects, retract_aspect, update_aspect

SCHEMA = "urn:example:schema:tasks-aspect.1"


class Declared(BaseModel):
    jschema: str = Field(SCHEMA, alias="$schema")
    n: int


class Beside(BaseModel):
    """A model whose content does not have its schema."""

    model_config = ConfigDict(json_schema_extra={"$id": SCHEMA})
    n: int


@pytest.fixture
def entity(unique):
    """A thing about which no other test states anything."""
    return f"urn:example:thing:{unique}"


def test_aspects_are_listed_as_they_are_asked_for(in_script, effects, entity):
    """By schema, which may be that of a model, by content, time and number, in an order, with or without content."""

    def body():
        made = [attach_aspect(entity, Declared(n=n)) for n in range(3)]
        made.append(attach_aspect(entity, {"n": -1}, schema="urn:example:schema:tasks-other.1"))
        return (
            get_aspect(made[-1].urn) == made[-1],
            list_aspects(entity, order_by=["schema", "valid_from"], order_direction=["DESC", "ASC"]),
            list_aspects(entity, schema=Declared, order_direction="ASC"),
            list_aspects(entity, schema="urn:example:schema:tasks-%", limit=3),
            list_aspects(entity, schema=Declared, content_path="$.n ? (@ > 1)"),
            list_aspects(entity, filter="n == 1"),
            list_aspects(entity, at_time=datetime.now(timezone.utc) - timedelta(hours=1)),
            [aspect.content for aspect in list_aspects(entity, include_content=False, limit=1)],
        )

    same, *lists, bare = in_script(body)
    numbers = [[aspect.content["n"] for aspect in each] for each in lists]
    assert numbers == [[-1, 0, 1, 2], [0, 1, 2], [-1, 2, 1], [2], [1], []]
    assert same and bare == [None]


def test_a_retraction_is_idempotent(in_script, effects, entity):
    """Retracting twice changes nothing more. An unknown aspect is an error, and a plan only names the retraction."""

    def body():
        first = attach_aspect(entity, Beside(n=1))
        with plan() as planned:
            retract_aspect(first)
        assert [str(effect) for effect in planned.effects] == [f"new: aspect retraction for {first.urn}"]
        assert [aspect.schema_urn for aspect in list_aspects(entity)] == [SCHEMA]
        for _ in range(2):
            retract_aspect(first)
        assert list_aspects(entity) == [] and get_aspect(first.urn).content["n"] == 1
        with pytest.raises(NotFoundError):
            retract_aspect("urn:ivcap:aspect:00000000-0000-4000-8000-000000000000")

    in_script(body)
    assert len([r for r in effects.embedded.requests("DELETE") if r["path"].startswith("/1/aspects/")]) == 1


@pytest.mark.parametrize("late", ["late_visibility", "late_in_lists"])
def test_an_update_that_does_not_show_yet_is_not_sent_again(in_script, effects, entity, late):
    """Also where a deployment only adds aspects. Once it shows and is retracted, an equal one is made anew."""
    effects.embedded.add_fault(method="PUT", path="^/1/aspects$", status=403)
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", **{late: 60})

    def update():
        return update_aspect(entity, {"n": 1}, schema=SCHEMA)

    def body():
        made = [update(), update()]
        effects.embedded.clear_faults()
        effects.embedded.advance_clock(61)
        made.append(update())
        assert list_aspects(entity) == made[:1]
        retract_aspect(made[0])
        return made, update()

    made, anew = in_script(body)
    assert made == made[:1] * 3 and anew.urn != made[0].urn


KILLED = """
import os, signal, sys
from prefect import flow
from ivcap_flows import recorded
from ivcap_flows.journal.intents import Intents
from ivcap_flows.tasks import attach_aspect, update_aspect

if os.environ.get("KILL"):
    def gone(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def settle(self, intent, **outcome):
        return gone() if intent.noun == "aspect update" else real(self, intent, **outcome)

    real, Intents.settle = Intents.settle, settle

@flow
@recorded
def killed(entity: str):
    attach_aspect(entity, {"n": 1}, schema="urn:example:schema:killed.1")
    return update_aspect(entity, {"n": 2}, schema="urn:example:schema:killed.1").urn

print(killed(sys.argv[1]))
"""


@pytest.mark.long
def test_an_update_whose_process_was_killed_is_settled(effects, entity, tmp_path, prefect_server, on_platform):
    """If a kill left the aspect on the platform and not in the journal, the next attempt adopts it."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = {**os.environ, **prefect_server, "PYTHONPATH": os.getcwd()}

    def attempt(**more):
        command = [sys.executable, str(script), entity]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True, timeout=90)

    assert attempt(KILL="1").returncode == -signal.SIGKILL
    with Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"]) as journal:
        assert [row.state for row in journal.intents.where(noun="aspect update")] == ["sent"]
        again = attempt()
        assert again.returncode == 0, again.stderr
        [row] = journal.intents.where(noun="aspect update")
    assert (row.state, row.how, row.urn) == ("done", "adopted", again.stdout.split()[-1])
    assert effects.count("/1/aspects", "PUT") == 1


def interrupted(monkeypatch, noun):
    """Let the attempt fail, once, when the outcome of a noun should be written."""
    real = Intents.settle
    left = [1]

    def settle(self, intent, **outcome):
        if intent.noun == noun and left:
            left.pop()
            raise RuntimeError("cut off")
        return real(self, intent, **outcome)

    monkeypatch.setattr(Intents, "settle", settle)


@pytest.mark.long
def test_an_update_that_another_superseded_meanwhile_is_told(in_flow, effects, entity, monkeypatch, on_platform):
    """If another user replaced the update before the next attempt looked, the error holds both contents.

    The intent is closed, and a new update works.
    """
    interrupted(monkeypatch, "aspect update")
    tries = []

    async def by_another(client):
        await client.aspects.update(entity, SCHEMA, {"$schema": SCHEMA, "n": 9})

    def body():
        tries.append(1)
        if len(tries) == 1:
            attach_aspect(entity, Declared(n=1))
            return update_aspect(entity, Declared(n=2))
        if len(tries) == 2:
            on_platform(by_another)
            with pytest.raises(SupersededError) as caught:
                update_aspect(entity, Declared(n=2))
            assert [theirs["n"] for theirs in caught.value.theirs] == [9]
        return update_aspect(entity, Declared(n=2))

    assert in_flow(body, retries=1).content["n"] == 2
    assert {row.state for row in effects.intents("aspect update")} == {"dropped", "done"}


def test_an_update_that_was_never_sent_is_asked_for_anew(in_flow, effects, entity, monkeypatch, on_platform):
    """An update that was cut off before it was sent is made again.

    A change by another user meanwhile does not matter.
    """

    def cut_off(*_):
        raise RuntimeError("cut off")

    async def by_another(client):
        await client.aspects.add(entity, SCHEMA, {"$schema": SCHEMA, "n": 9})

    tries = []

    def body():
        tries.append(1)
        if len(tries) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(Intents, "mark_sent", cut_off)
                return update_aspect(entity, Declared(n=1))
        assert [row.state for row in effects.intents("aspect update")] == ["claimed"]
        on_platform(by_another)
        return update_aspect(entity, Declared(n=1))

    assert in_flow(body, retries=1).content["n"] == 1
    assert {row.state for row in effects.intents("aspect update")} == {"dropped", "done"}


def test_an_update_in_doubt_is_adopted_by_hand(in_script, effects, entity, monkeypatch, capsys):
    """`orders resolve` stores the same handle that the task would have returned."""
    interrupted(monkeypatch, "aspect update")
    with pytest.raises(RuntimeError, match="cut off"):
        in_script(lambda: update_aspect(entity, Declared(n=1)))
    [row] = effects.intents("aspect update")
    assert row.in_doubt
    for urn, status in (("urn:ivcap:order:o", 2), ("urn:ivcap:aspect:a", 0)):
        with pytest.raises(SystemExit) as ended:
            main(["orders", "resolve", row.key, "--urn", urn])
        assert ended.value.code == status
    assert "is not the URN of an IVCAP aspect" in capsys.readouterr().err
    [row] = effects.intents("aspect update")
    assert row.state == "done" and row.outcome["entity"] == entity and row.outcome["content"]["n"] == 1


def test_an_update_that_was_cut_off_after_it_added_is_completed(in_script, effects, entity, on_platform):
    """Where the platform only adds, and the reply is lost: the aspect is adopted, and the one before is retracted."""
    effects.embedded.add_fault(method="PUT", path="^/1/aspects$", status=403)

    def body():
        update_aspect(entity, Declared(n=1))
        effects.embedded.add_fault(method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True)
        return update_aspect(entity, Declared(n=2))

    updated = in_script(body)
    active = on_platform(lambda client: all_of(client.aspects.list(entity=entity, schema=SCHEMA)))
    assert [record.urn for record in active] == [updated.urn]


def test_an_update_whose_other_aspect_is_not_retracted_is_completed(in_script, effects, entity, on_platform):
    """Where the platform only adds, and refuses for now to retract: the update was made, so it is not made again."""
    effects.embedded.add_fault(method="PUT", path="^/1/aspects$", status=403)

    def body():
        update_aspect(entity, Declared(n=1))
        effects.embedded.add_fault(method="DELETE", path="^/1/aspects/", count=1, status=401)
        return update_aspect(entity, Declared(n=2))

    updated = in_script(body)
    active = on_platform(lambda client: all_of(client.aspects.list(entity=entity, schema=SCHEMA)))
    assert [record.urn for record in active] == [updated.urn]
