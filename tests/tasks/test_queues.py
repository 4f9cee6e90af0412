"""Queues as tasks: one queue per name, messages put at least once, and taken at most once."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from ivcap_flows.cli import main
from ivcap_flows.durable import plan
from ivcap_flows.errors import NotFoundError, UnavailableError, UnreachableError
from ivcap_flows.journal.intents import Intents
from ivcap_flows.tasks import create_queue, delete_queue, dequeue, enqueue, list_queues
from ivcap_flows.tasks.queues import KEY_MEMBER
from ivcap_flows.tasks.waiting import PlannedError


class Reading(BaseModel):
    station: str
    value: float


@pytest.fixture
def name(unique):
    return f"tasks-{unique}"


def sent(effects, method="POST"):
    """Return the requests that put or took messages and took effect."""
    found = [r for r in effects.embedded.requests(method) if r["path"].endswith("/messages")]
    return [r for r in found if r["status"] is not None and r["status"] < 300]


def test_a_name_is_one_queue(in_flow, effects, name):
    """A second call finds the queue. After a deletion, which may be repeated, it is made again."""

    def body():
        first, again = create_queue(name, description="of a test"), create_queue(name)
        assert [queue.urn for queue in list_queues() if queue.name == name] == [first.urn]
        delete_queue(first)
        delete_queue(first.urn)
        return first, again, create_queue(name)

    first, again, anew = in_flow(body)
    assert first.urn == again.urn != anew.urn
    assert (first.name, first.description) == (name, "of a test")
    assert effects.count("/1/queues") == 2


def test_a_queue_whose_reply_was_lost_is_found(in_flow, effects, name):
    """After a lost reply the name is taken by the first request, whose queue is the result."""
    effects.embedded.add_fault(method="POST", path="^/1/queues$", count=1, drop_reply_after_effect=True)
    queue = in_flow(lambda: create_queue(name))
    assert effects.count("/1/queues") == 1 and queue.name == name


def test_messages_go_in_and_come_out(in_flow, effects, name):
    """Objects, models, handles and other JSON come out as they were put in. Objects also have their key."""

    def body():
        queue = create_queue(name)
        given = [{"n": 1, "queue": queue}, Reading(station="Callao", value=17.5), [1, None], "text", 3]
        made = [enqueue(queue, content, schema="urn:example:schema:message.1") for content in given]
        return made, [*dequeue(queue, limit=3), *dequeue(queue, limit=3)], dequeue(queue)

    made, taken, rest = in_flow(body)
    assert [message.content for message in taken] == [message.content for message in made]
    assert made[0].content["queue"].startswith("urn:ivcap:queue:") and made[1].content["station"] == "Callao"
    assert [message.key for message in taken] == [message.key for message in made]
    assert all(message.key.startswith("k1:") for message in taken[:2])
    assert [message.key for message in taken[2:]] == [None] * 3
    assert {message.schema_urn for message in taken} == {"urn:example:schema:message.1"} and rest == []


def test_equal_messages_of_a_run_are_one(in_flow, effects, name):
    """Equal messages are one unless a discriminator differs. `$schema` in the content is the message's schema."""

    def body():
        queue, content = create_queue(name), {"$schema": "urn:example:schema:message.1", "n": 1}
        for discriminator in (None, None, "second"):
            enqueue(queue, content, discriminator=discriminator)
        return dequeue(queue, limit=10)

    first, second = in_flow(body)
    assert first.key != second.key and first.content == second.content
    assert first.schema_urn == "urn:example:schema:message.1"


def test_a_message_whose_reply_was_lost_is_sent_again(in_flow, effects, name, on_platform):
    """After a lost reply the message is sent again (at least once). Both copies have the same key."""

    def body():
        queue = create_queue(name)
        effects.embedded.add_fault(method="POST", path="/messages$", count=1, drop_reply_after_effect=True)
        return queue, enqueue(queue, {"n": 1})

    queue, message = in_flow(body)
    raw = on_platform(lambda client: client.queues.dequeue(queue.urn, limit=5))
    assert [one.content for one in raw] == [{"n": 1, KEY_MEMBER: message.key}] * 2
    [row] = effects.intents("message")
    assert (row.state, row.how) == ("done", "sent")


def test_a_message_that_an_attempt_left_in_doubt(in_flow, effects, name, monkeypatch):
    """The next attempt sends a message in doubt again under the same key, and a sent one not."""
    real, left = Intents.settle, [1]

    def settle(self, intent, **outcome):
        if intent.noun == "message" and left:
            left.pop()
            raise RuntimeError("cut off")
        return real(self, intent, **outcome)

    monkeypatch.setattr(Intents, "settle", settle)

    def body():
        queue = create_queue(name)
        enqueue(queue, {"n": 1})
        enqueue(queue, {"n": 2})
        return queue

    queue = in_flow(body, retries=1)
    first, again, second = in_flow(lambda: dequeue(queue, limit=5))
    assert first.key == again.key != second.key


def test_a_message_is_adopted_by_hand(in_flow, effects, name, monkeypatch, capsys):
    """A user who knows that the message arrived adopts it by its id, and it is not sent again."""

    def cut_off(*_, **__):
        raise RuntimeError("cut off")

    def body():
        queue = create_queue(name)
        if not effects.intents("message"):
            with monkeypatch.context() as patch:
                patch.setattr(Intents, "settle", cut_off)
                enqueue(queue, {"n": 1})
        [row] = effects.intents("message")
        with pytest.raises(SystemExit) as ended:
            main(["orders", "adopt", row.key, "by-hand"])
        assert ended.value.code == 0
        return enqueue(queue, {"n": 1}), dequeue(queue, limit=5)

    kept, there = in_flow(body, retries=1)
    assert (kept.id, kept.content, kept.key) == ("by-hand", {"n": 1}, there[0].key)
    assert len(there) == 1


@pytest.mark.parametrize("fault", [{"drop_reply_after_effect": True}, {"truncate": 5}, {"status": 503}])
def test_messages_are_never_asked_for_twice(in_flow, effects, name, fault):
    """A lost reply loses the taken message. The error comes at once, and nothing is requested again."""

    def body():
        queue = create_queue(name)
        enqueue(queue, {"n": 1})
        effects.embedded.forget_requests()
        effects.embedded.add_fault(method="GET", path="/messages$", count=1, **fault)
        with pytest.raises((UnreachableError, UnavailableError)):
            dequeue(queue)
        asked = [r for r in effects.embedded.requests("GET") if r["path"].endswith("/messages")]
        return len(asked), dequeue(queue)

    asked, left = in_flow(body)
    assert asked == 1
    assert len(left) == (1 if "status" in fault else 0)


def test_a_plan_leaves_queues_alone(in_flow, effects, name, unique):
    """A plan names what would be made, sent and deleted. It ends at the first take."""
    kept = in_flow(lambda: create_queue(f"kept-{unique}"))

    def body():
        queue = create_queue(name)
        enqueue(queue, {"n": 1})
        delete_queue(kept)
        dequeue(queue)

    with plan() as planned, pytest.raises(PlannedError, match="take messages out of urn:ivcap-flows:planned:queue"):
        in_flow(body)
    assert [(effect.noun, effect.source) for effect in planned.effects] == [
        ("queue", "new"),
        ("message", "new"),
        ("queue deletion", "new"),
    ]
    assert sent(effects) == [] and kept.urn in [queue.urn for queue in in_flow(list_queues)]


def test_an_unknown_queue_is_told(in_flow, effects):
    """A message to an unknown queue is an error."""
    nowhere = "urn:ivcap:queue:00000000-0000-4000-8000-000000000000"
    for ask in (lambda: enqueue(nowhere, {}), lambda: dequeue(nowhere)):
        with pytest.raises(NotFoundError):
            in_flow(ask)
    assert [row.state for row in effects.intents("message")] == ["dropped"]
