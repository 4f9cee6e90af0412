"""What another account opens to all is not taken for one's own, whatever it says and is called."""

from __future__ import annotations

import pytest
from on_record import key_of

from ivcap_flows import loop, tasks
from ivcap_flows.capture import use_journal
from ivcap_flows.identity import INTENT_SCHEMA, key_entity, short_id
from ivcap_flows.journal import Journal
from ivcap_flows.tasks.orders import OrderEffect

# The bodies of the tasks: a flow run around each would take most of the time, and change nothing.
place_order = tasks.place_order.fn
read_artifact = tasks.read_artifact.fn
upload_artifact = tasks.upload_artifact.fn

OPEN = "urn:ivcap:policy:ivcap.open.metadata"


@pytest.fixture
def forge(second_account):
    """Assert, as another account, that its own thing is the effect of a key; all may read it."""

    def assert_it(key, noun, handle):
        content = {"key": key, "journal": "theirs", "noun": noun, "scope": "account", "generation": 0}
        content |= {"urn": handle.urn, "outcome": handle.model_dump(mode="json"), "created-at": "2020-01-01T00:00:00Z"}

        async def told():
            async with second_account.get_client() as client:
                await client.aspects.add(key_entity(key), INTENT_SCHEMA, content, OPEN)

        loop.run(told())

    return assert_it


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_an_upload_is_not_taken_from_another_account(effects, source, second_account, forge, large):
    """Its artifact could have any content."""
    if large:
        source.write_bytes(source.read_bytes() * (2**21 // source.stat().st_size))
    theirs = upload_artifact(b"poison", policy=OPEN, credentials=second_account)
    forge(key_of(lambda: upload_artifact(source)), "upload", theirs)
    mine = upload_artifact(source)
    assert mine.urn != theirs.urn and read_artifact(mine) == source.read_bytes()


def test_an_order_is_not_taken_from_another_account(effects, unique, second_account, forge, tmp_path):
    """Neither by this journal nor by a new one, which finds one's own record behind the forged one."""

    def place():
        return place_order("echo", {"message": unique}, once_per="account")

    theirs = place_order("echo", {"message": "poison"}, policy=OPEN, credentials=second_account)
    key = key_of(place)
    forge(key, "order", theirs)
    mine = place()
    assert mine.urn != theirs.urn and mine.key == key
    with Journal.open(f"sqlite:///{tmp_path / 'new.sqlite'}") as new, use_journal(new):
        assert place().urn == mine.urn


def test_an_order_of_another_account_under_the_keys_name_is_not_adopted(effects, unique, second_account, monkeypatch):
    """After a lost reply one's own is looked for by a name that others can give to theirs in the meantime."""
    sends, theirs = OrderEffect.send, []

    async def sends_when_another_has(self, intent, progress):
        if not theirs:
            async with second_account.get_client() as client:
                named = {"name": f"echo [{short_id(intent.key)}]", "policy": OPEN}
                theirs.append(await client.orders.place(self.service.urn, {"message": "poison"}, **named))
            effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, reset=True)
        return await sends(self, intent, progress)

    monkeypatch.setattr(OrderEffect, "send", sends_when_another_has)
    mine = place_order("echo", {"message": unique}, once_per="account")
    assert theirs and mine.urn != theirs[0].urn and effects.intents("order")[0].how == "sent"
