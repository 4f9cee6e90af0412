"""Queues as tasks: one queue per name, messages put at least once, and taken at most once."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from ivcap_flows import tasks
from ivcap_flows.cli import main
from ivcap_flows.durable import plan
from ivcap_flows.journal.intents import Intents
from ivcap_flows.tasks.queues import KEY_MEMBER
from ivcap_flows.tasks.waiting import PlannedError

# The bodies of the tasks: a flow run around each would take most of the time, and change nothing.
create_queue = tasks.create_queue.fn
delete_queue = tasks.delete_queue.fn
dequeue = tasks.dequeue.fn
enqueue = tasks.enqueue.fn
list_queues = tasks.list_queues.fn


class Reading(BaseModel):
    station: str
    value: float


@pytest.fixture
def name(unique):
    return f"tasks-{unique}"


@pytest.fixture
def cut_off(monkeypatch):
    """Let the process fail, once, when the outcome of a message should be written."""
    real, left = Intents.settle, [1]

    def settle(self, intent, **outcome):
        if intent.noun == "message" and left:
            left.pop()
            raise RuntimeError("cut off")
        return real(self, intent, **outcome)

    monkeypatch.setattr(Intents, "settle", settle)


def test_a_name_is_one_queue(effects, name):
    """A second call finds the queue, also after a lost reply. After a deletion, which may be repeated, it is made
    again."""
    effects.embedded.add_fault(method="POST", path="^/1/queues$", count=1, drop_reply_after_effect=True)
    first, again = create_queue(name, description="of a test"), create_queue(name)
    assert [queue.urn for queue in list_queues() if queue.name == name] == [first.urn]
    assert effects.count("/1/queues") == 1
    delete_queue(first)
    delete_queue(first.urn)
    assert first.urn == again.urn != create_queue(name).urn
    assert (first.name, first.description) == (name, "of a test")


def test_messages_go_in_and_come_out(effects, name):
    """Objects, models, handles and other JSON come out as they were put in. Objects also have their key."""
    queue = create_queue(name)
    given = [{"n": 1, "queue": queue}, Reading(station="Callao", value=17.5), [1, None], "text", 3]
    made = [enqueue(queue, content, schema="urn:example:schema:message.1") for content in given]
    taken = [*dequeue(queue, limit=3), *dequeue(queue, limit=3)]
    assert dequeue(queue) == []
    assert [message.content for message in taken] == [message.content for message in made]
    assert made[0].content["queue"].startswith("urn:ivcap:queue:") and made[1].content["station"] == "Callao"
    assert [message.key for message in taken] == [message.key for message in made]
    assert all(message.key.startswith("k1:") for message in taken[:2])
    assert [message.key for message in taken[2:]] == [None] * 3
    assert {message.schema_urn for message in taken} == {"urn:example:schema:message.1"}


def test_equal_messages_of_a_run_are_one(effects, name):
    """Equal messages are one unless a discriminator differs. `$schema` in the content is the message's schema."""
    queue, content = create_queue(name), {"$schema": "urn:example:schema:message.1", "n": 1}
    for discriminator in (None, None, "second"):
        enqueue(queue, content, discriminator=discriminator)
    first, second = dequeue(queue, limit=10)
    assert first.key != second.key and first.content == second.content
    assert first.schema_urn == "urn:example:schema:message.1"


def test_a_message_whose_reply_was_lost_is_sent_again(effects, name, on_platform):
    """After a lost reply the message is sent again (at least once). Both copies have the same key."""
    queue = create_queue(name)
    effects.embedded.add_fault(method="POST", path="/messages$", count=1, drop_reply_after_effect=True)
    message = enqueue(queue, {"n": 1})
    raw = on_platform(lambda client: client.queues.dequeue(queue.urn, limit=5))
    assert [one.content for one in raw] == [{"n": 1, KEY_MEMBER: message.key}] * 2
    [row] = effects.intents("message")
    assert (row.state, row.how) == ("done", "sent")


def test_a_message_that_an_attempt_left_in_doubt(in_flow, effects, name, cut_off):
    """The next attempt sends a message in doubt again under the same key, and a sent one not."""

    def body():
        queue = create_queue(name)
        enqueue(queue, {"n": 1})
        enqueue(queue, {"n": 2})
        return queue

    first, again, second = dequeue(in_flow(body, retries=1), limit=5)
    assert first.key == again.key != second.key


def test_a_message_is_resolved_by_hand(effects, name, cut_off):
    """A user who knows that the message arrived says so by its id, and it is not sent again."""
    queue = create_queue(name)
    with pytest.raises(RuntimeError, match="cut off"):
        enqueue(queue, {"n": 1})
    [row] = effects.intents("message")
    with pytest.raises(SystemExit) as ended:
        main(["orders", "resolve", row.key, "--urn", "by-hand"])
    assert ended.value.code == 0
    kept, [there] = enqueue(queue, {"n": 1}), dequeue(queue, limit=5)
    assert (kept.id, kept.content, kept.key) == ("by-hand", {"n": 1}, there.key)


def test_a_plan_leaves_queues_alone(effects, name):
    """A plan names what would be made, sent and deleted. It ends at the first take."""
    kept = create_queue(f"kept-{name}")
    with plan() as planned:
        queue = create_queue(name)
        enqueue(queue, {"n": 1})
        delete_queue(kept)
        with pytest.raises(PlannedError, match="take messages out of urn:ivcap-flows:planned:queue"):
            dequeue(queue)
    assert [(effect.noun, effect.source) for effect in planned.effects] == [
        ("queue", "new"),
        ("message", "new"),
        ("queue deletion", "new"),
    ]
    assert [r for r in effects.embedded.requests("POST") if r["path"].endswith("/messages")] == []
    assert kept.urn in [queue.urn for queue in list_queues()]
