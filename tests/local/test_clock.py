"""The clock that tests can set, and ids that follow from a seed. Both platforms obey them."""

import itertools
import uuid

import httpx
import pytest

from ivcap_flows.errors import InputError
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.local.clock import Clock
from ivcap_flows.local.remote import PlatformControl

THEN = "2001-05-06T07:08:09Z"


@pytest.fixture
def clock(local_platform):
    """The control API's client. After the test the clock shows the machine's time again."""
    with local_platform.control() as control:
        yield control
        control.delete("/clock")


def said(reply, status=200):
    assert reply.status_code == status, reply.text
    return reply.json()


def provena_token(embedded):
    """An access token of the first user of the embedded Provena."""
    form = {
        "grant_type": "refresh_token",
        "client_id": embedded.environment["PROVENA_CLIENT_ID"],
        "refresh_token": embedded.environment["PROVENA_OFFLINE_TOKEN"],
    }
    realm = f"{embedded.environment['PROVENA_KEYCLOAK']}/realms/{embedded.environment['PROVENA_REALM']}"
    return said(httpx.post(f"{realm}/protocol/openid-connect/token", data=form))["access_token"]


def template(embedded):
    """A new item of the embedded Provena's registry, and the job that its creation starts."""
    url = f"{embedded.environment['PROVENA_REGISTRY_API']}/registry/entity/dataset_template/create"
    headers = {"Authorization": f"Bearer {provena_token(embedded)}"}
    return said(httpx.post(url, json={"display_name": "Anything"}, headers=headers))


@pytest.mark.long
def test_the_date_of_a_reply_is_the_clocks(local_platform, clock):
    """The header Date has the time of the clock, as the records have, also in a refusal."""
    url, provena = local_platform.url, local_platform.environment["PROVENA_REGISTRY_API"]
    said(clock.post("/clock", json={"now": THEN, "freeze": True}))
    for asked in (
        f"{url}/_embedded",
        f"{url}/1/orders",
        f"{provena}/registry/entity/model/list",
        f"{url}/{'x' * 20_000}",
    ):
        assert httpx.get(asked).headers.get_list("date") == ["Sun, 06 May 2001 07:08:09 GMT"]


def test_a_clock_that_was_stopped_stamps_both_platforms(local_platform, clock, first):
    """IVCAP's records, Provena's items and jobs, and expiry times of tokens all have the time that was set."""
    echo = first.service("echo")
    told = said(clock.post("/clock", json={"now": THEN, "freeze": True}))
    assert (told["now"], told["rate"]) == ("2001-05-06T07:08:09.000Z", 0) and told["offset"] < 0
    artifact = first.create(3)
    assert artifact["created-at"] == THEN == artifact["last-modified-at"]
    urn = first.add("urn:t:then", {})
    assert first.get(f"/1/aspects/{urn}")["valid-from"] == THEN
    order = first.finished(first.order(echo, message="then"))
    assert (order["ordered-at"], order["finished-at"]) == (THEN, THEN)
    assert template(local_platform)["created_item"]["created_timestamp"] == 989132889
    assert said(clock.get("/clock"))["now"] == "2001-05-06T07:08:09.000Z"


def test_a_clock_moves_on_as_told(clock):
    """The clock can be advanced and stopped, and continues from where it stopped."""
    said(clock.post("/clock", json={"now": THEN, "freeze": True}))
    assert said(clock.post("/clock", json={"advance": 60.5}))["now"] == "2001-05-06T07:09:09.500Z"
    going = said(clock.post("/clock", json={"freeze": False}))
    assert going["rate"] == 1 and going["now"].startswith("2001-05-06T07:09:")
    assert abs(said(clock.delete("/clock"))["offset"]) < 1


def test_a_moment_set_and_stopped_at_once_is_that_moment(monkeypatch):
    """A clock that is set and stopped in one request shows exactly that time."""
    machine = itertools.count(1_700_000_000_000, 7)
    monkeypatch.setattr("ivcap_flows.local.clock._machine_ms", lambda: next(machine))
    clock = Clock()
    clock.set(1000, freeze=True)
    assert clock.now() == 1000
    clock.set(2000)
    assert clock.now() == 2000
    clock.set(2000, freeze=False)
    assert clock.now() == 2007


def test_what_is_no_change_is_refused(clock):
    """An invalid change is a 400 with a message, and the clock is unchanged."""
    for wrong in (
        {},
        [],
        {"now": "yesterday"},
        {"now": 7},
        {"now": "1815-01-01T00:00:00Z"},
        {"advance": -1},
        {"advance": "1"},
        {"advance": 1e30},
        {"freeze": 1},
        {"rate": 2},
        {"now": THEN, "freeze": "yes"},
    ):
        assert said(clock.post("/clock", json=wrong), 400)["message"]
    assert said(clock.post("/clock", content=b"{"), 400)
    assert abs(said(clock.get("/clock"))["offset"]) < 1


def test_tokens_end_by_this_clock(local_platform, clock, first):
    """Tokens of both platforms expire by this clock, and are valid again when it is set back."""
    bearer = provena_token(local_platform)
    access = f"{local_platform.environment['PROVENA_REGISTRY_API']}/check-access/check-general-access"
    headers = {"Authorization": f"Bearer {bearer}"}
    said(clock.post("/clock", json={"advance": 301}))
    assert said(httpx.get(access, headers=headers), 401)["detail"] == "Could not validate credentials"
    first.get("/1/artifacts")
    said(clock.post("/clock", json={"advance": 366 * 24 * 3600}))
    assert first.call("GET", "/1/artifacts", 401).headers["WWW-Authenticate"].endswith('error="invalid_token"')
    clock.delete("/clock")
    first.get("/1/artifacts")
    said(httpx.get(access, headers=headers))


def test_what_is_hidden_for_a_while_shows_when_time_passes(clock, first):
    """Late visibility ends by this clock, so a test need not wait."""
    said(clock.post("/clock", json={"now": THEN, "freeze": True}))
    said(clock.post("/faults", json={"method": "POST", "path": "/1/aspects", "late_visibility": 3600}), 201)
    try:
        first.add("urn:t:hidden", {})
    finally:
        clock.delete("/faults")
    assert first.aspects(entity="urn:t:hidden") == []
    said(clock.post("/clock", json={"advance": 3600}))
    assert len(first.aspects(entity="urn:t:hidden")) == 1


def test_a_clock_that_is_set_back_holds_no_order(clock, first):
    """An order that waited for its start when the clock was set back is started, and so are those after it."""
    said(clock.post("/like", json={"like": "production"}))
    said(clock.post("/clock", json={"advance": 3600}))
    said(clock.post("/clock", json={"freeze": True}))
    waiting = first.order("echo", message="a")
    assert first.get(f"/1/orders/{waiting['id']}")["status"] == "pending"
    clock.delete("/like")
    said(clock.delete("/clock"))
    assert first.finished(first.order("echo", message="b"))["status"] == "succeeded"
    assert first.finished(waiting)["status"] == "succeeded"


def test_the_clock_wants_the_control_token(local_platform, first):
    """The clock cannot be set without the control token, nor with an account's token."""
    for method in ("GET", "POST", "DELETE"):
        assert httpx.request(method, f"{local_platform.url}/_embedded/clock").status_code == 401
        first.call(method, "/_embedded/clock", 401)


def test_the_control_object_sets_the_clock(local_platform):
    """The control object of the fixture `embedded_platform` can set the clock."""
    from datetime import datetime, timezone

    known = local_platform.known()
    control = PlatformControl(
        EmbeddedPlatform(
            local_platform.url, local_platform.root, known["instance"], local_platform.environment, known["control"]
        )
    )
    control.set_clock(datetime(2001, 5, 6, tzinfo=timezone.utc))
    control.freeze_clock()
    stood = control.clock()
    control.advance_clock(0.25)
    assert control.clock()["now"] > stood["now"] and control.clock()["rate"] == 0
    control.reset_clock()
    assert abs(control.clock()["offset"]) < 1
    with pytest.raises(InputError, match="offset"):
        control.set_clock(datetime(2001, 5, 6))
    with pytest.raises(InputError, match="1970"):
        control.set_clock(datetime(1901, 5, 6, tzinfo=timezone.utc))


def made(home):
    """Return ids of each kind that a server makes for the same requests."""
    caller = home.caller()
    order = caller.finished(caller.order("echo", message="seeded"))
    job = caller.job_of(order)
    return [
        caller.create(1)["id"],
        caller.add("urn:t:seeded", {}),
        order["id"],
        job["id"],
        job["account"],
        order["service"],
        template(home)["register_create_activity_session_id"],
    ]


@pytest.mark.long
def test_a_seed_gives_the_same_ids_and_the_clock_stays(tmp_path, request):
    """Two empty directories with one seed make the same ids, also over a restart, but have different instance ids."""
    home_class = request.getfixturevalue("local_home").__class__
    one, other, third = (home_class(tmp_path / name) for name in ("one", "other", "third"))
    for home in (one, other, third):
        request.addfinalizer(home.close)
    one.start("--seed", "7")
    begun = made(one)
    with one.control() as control:
        said(control.post("/clock", json={"now": THEN, "freeze": True}))
    one.stop()
    one.start()
    with one.control() as control:
        assert said(control.get("/clock"))["now"] == "2001-05-06T07:08:09.000Z"
        control.delete("/clock")
    went_on = made(one)
    other.start("--seed", "7")
    assert made(other) == begun
    # The workers of the first template draw ids of Provena meanwhile, at their own pace.
    assert made(other)[:-1] == went_on[:-1]
    assert len({*begun, *went_on}) == 12  # account and service are the same ones
    assert uuid.UUID(begun[0].rsplit(":", 1)[1]).version == 4
    assert one.known()["instance"] != other.known()["instance"]
    third.start("--seed", "8")
    assert not set(made(third)) & set(begun)
