"""With a platform's clock far from this machine's, a lost reply is found again and each effect exists once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from ivcap_flows import local
from ivcap_flows.errors import InDoubtError
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import attach_aspect, list_aspects, list_items, place_order, register_item, request_job

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


def posts(effects, ending):
    """Return the POST requests that took effect, to a path with this ending."""
    found = [r for r in effects.embedded.requests("POST") if r["path"].endswith(ending)]
    return [r for r in found if r["status"] is not None and r["status"] < 300]


# The services were there when the platforms began, so an order cannot be placed before that.
@pytest.mark.parametrize("minutes", [pytest.param(10, marks=pytest.mark.long), 180])
def test_orders_and_jobs(clock, in_flow, effects, unique, minutes):
    """One order and one job exist, with a clock that is ahead by minutes or hours."""
    clock(minutes)
    for path in ("^/1/orders$", "/jobs$"):
        effects.embedded.add_fault(method="POST", path=path, count=1, drop_reply_after_effect=True, late_visibility=1.0)
    order = in_flow(lambda: place_order("echo", {"message": unique}))
    job = in_flow(lambda: request_job("echo", {"message": unique}))
    assert effects.count("/1/orders") == 1 == len(posts(effects, "/jobs"))
    assert [effects.intents(noun)[0].urn for noun in ("order", "job")] == [order.urn, job.urn]


@pytest.mark.long
@pytest.mark.parametrize("minutes", [-180, -10, 10, 180])
def test_aspects_and_items(clock, in_flow, effects, on_platform, unique, minutes):
    """One of each exists, with a clock that is ahead or behind, once a reply has shown the platform's time."""
    clock(minutes)
    entity = f"urn:example:thing:{unique}"
    in_flow(lambda: (list_aspects(entity), list_items("ORGANISATION")))
    for path in ("^/1/aspects$", "/organisation/create$"):
        effects.embedded.add_fault(method="POST", path=path, count=1, drop_reply_after_effect=True, late_visibility=1.0)
    aspect = in_flow(lambda: attach_aspect(entity, {"text": "once"}, schema=NOTE))
    item = in_flow(lambda: register_item(Organisation(display_name=unique, name=unique)))
    assert effects.count("/1/aspects") == 1 == len(posts(effects, "/organisation/create"))
    assert [effects.intents(noun)[0].urn for noun in ("aspect", "registry item")] == [aspect.urn, item.urn]


@pytest.mark.long
def test_a_platform_whose_clock_is_set(clock, in_flow, effects, on_platform, unique):
    """The clock is set forward or back just before the request.

    An effect with a key is found, and one that only its content identifies is not sent twice.
    """
    for minutes in (180, 10, 190, 5):
        clock(minutes)
        for path in ("^/1/orders$", "/organisation/create$"):
            effects.embedded.add_fault(method="POST", path=path, count=1, drop_reply_after_effect=True)
        name = f"{unique} {minutes}"
        in_flow(lambda name=name: register_item(Organisation(display_name=name, name=name)))
        in_flow(lambda name=name: place_order("echo", {"message": name}))
    assert effects.count("/1/orders") == 4 == len(posts(effects, "/organisation/create"))
    clock(180)
    in_flow(lambda: list_aspects(unique))
    clock(10)
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True)
    with pytest.raises(InDoubtError):
        in_flow(lambda: attach_aspect(f"urn:example:thing:{unique}", {"text": "once"}, schema=NOTE))
    entity = f"urn:example:thing:{unique}"
    assert len(on_platform(lambda client: listed(client.aspects.list(entity=entity)))) == 1


async def listed(records):
    return [record async for record in records]
