"""With a platform's clock far from this machine's, a lost reply is found again and each effect exists once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from ivcap_flows import local
from ivcap_flows.errors import InDoubtError
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import attach_aspect, list_aspects, place_order, register_item, request_job
from ivcap_flows.tasks.provena import list_items

NOTE = "urn:example:schema:clocks.1"


@pytest.fixture(scope="session")
def _embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.EmbeddedPlatform]:
    """Embedded platforms for these tests only, since things that are made in the future stay there."""
    embedded = local.ensure(tmp_path_factory.mktemp("clock-embedded"))
    yield embedded
    embedded.end()


@pytest.fixture
def clock(embedded_platform):
    """Return `clock(minutes)`, which sets the platforms' clock ahead of this machine's, or behind it."""
    return lambda minutes: embedded_platform.set_clock(datetime.now(timezone.utc) + timedelta(minutes=minutes))


@pytest.mark.parametrize("minutes", [180, *(pytest.param(each, marks=pytest.mark.long) for each in (-180, -10, 10))])
def test_each_effect_exists_once(clock, in_script, effects, unique, minutes):
    """With a clock that is ahead or behind, once a reply has shown the platform's time."""
    clock(minutes)
    entity, organisation = f"urn:example:thing:{unique}", Organisation(display_name=unique, name=unique)

    def lose(path):
        effects.embedded.add_fault(method="POST", path=path, count=1, drop_reply_after_effect=True, late_visibility=0.4)

    def body():
        list_aspects(entity)
        list_items("ORGANISATION")
        lose("^/1/aspects$")
        lose("/organisation/create$")
        made = {
            "aspect": attach_aspect(entity, {"text": "once"}, schema=NOTE),
            "registry item": register_item(organisation),
        }
        # The services were there when the platforms began, so an order cannot be placed before that.
        if minutes > 0:
            lose("^/1/orders$")
            lose("/jobs$")
            made["order"] = place_order("echo", {"message": unique})
            made["job"] = request_job("echo", {"message": unique})
        return made

    made = in_script(body)
    assert {noun: [one.urn for one in effects.intents(noun)] for noun in made} == {
        noun: [handle.urn] for noun, handle in made.items()
    }
    paths = ("/organisation/create", "/1/orders", "/jobs")
    assert [effects.posts(path) for path in paths] == [1, int(minutes > 0), int(minutes > 0)]


@pytest.mark.long
def test_a_platform_whose_clock_is_set(clock, in_script, effects, on_platform, unique):
    """The clock is set forward or back just before the request.

    An effect with a key is found, and one that only its content identifies is not sent twice.
    """
    for minutes in (180, 10, 190, 5):
        clock(minutes)
        for path in ("^/1/orders$", "/organisation/create$"):
            effects.embedded.add_fault(method="POST", path=path, count=1, drop_reply_after_effect=True)
        name = f"{unique} {minutes}"
        in_script(lambda name=name: register_item(Organisation(display_name=name, name=name)))
        in_script(lambda name=name: place_order("echo", {"message": name}))
    assert effects.count("/1/orders") == 4 == effects.posts("/organisation/create")
    clock(180)
    in_script(lambda: list_aspects(unique))
    clock(10)
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True)
    with pytest.raises(InDoubtError):
        in_script(lambda: attach_aspect(f"urn:example:thing:{unique}", {"text": "once"}, schema=NOTE))

    async def attached(client):
        return [record async for record in client.aspects.list(entity=f"urn:example:thing:{unique}")]

    assert len(on_platform(attached)) == 1
