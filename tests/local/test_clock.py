"""The clock that tests can set, and ids that follow from a seed. Both platforms obey them."""

import uuid
from datetime import datetime, timezone

import httpx
import pytest

from ivcap_flows.errors import InputError
from ivcap_flows.local import EmbeddedPlatform, PlatformControl
from ivcap_flows.local.clock import Clock

THEN = "2001-05-06T07:08:09Z"


@pytest.fixture
def clock(control, ada):
    """The control API's client. The clock runs right at first and at last."""
    yield control
    control.delete("/clock")
    ada.renew()


def said(reply, status=200):
    assert reply.status_code == status, reply.text
    return reply.json()


def template(user):
    """A new item of the registry, and the job that its creation starts."""
    url = "/registry/entity/dataset_template/create"
    return said(user.ask("registry", "POST", url, json={"display_name": "Anything"}))


def test_a_clock_that_was_stopped_stamps_both_platforms(clock, first, ada):
    """Records, items, jobs, and the header `Date` of each reply, also of a refusal, have the time that was set."""
    echo = first.service("echo")
    told = said(clock.post("/clock", json={"now": THEN, "freeze": True}))
    assert (told["now"], told["rate"]) == ("2001-05-06T07:08:09.000Z", 0) and told["offset"] < 0
    ada.renew()
    artifact = first.create(3)
    assert artifact["created-at"] == THEN == artifact["last-modified-at"]
    urn = first.add("urn:t:then", {})
    assert first.get(f"/1/aspects/{urn}")["valid-from"] == THEN
    order = first.finished(first.order(echo, message="then"))
    assert (order["ordered-at"], order["finished-at"]) == (THEN, THEN)
    assert template(ada)["created_item"]["created_timestamp"] == 989132889
    for path in ("/_embedded", "/1/orders", "/provena/registry/registry/entity/model/list", "/" + "x" * 20_000):
        assert httpx.get(first.url + path).headers.get_list("date") == ["Sun, 06 May 2001 07:08:09 GMT"]
    assert said(clock.get("/clock"))["now"] == "2001-05-06T07:08:09.000Z"


def test_a_clock_moves_on_as_told(clock):
    """The clock can be advanced and stopped, and continues from where it stopped. An invalid change changes nothing."""
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
    said(clock.post("/clock", json={"now": THEN, "freeze": True}))
    assert said(clock.post("/clock", json={"advance": 60.5}))["now"] == "2001-05-06T07:09:09.500Z"
    going = said(clock.post("/clock", json={"freeze": False}))
    assert going["rate"] == 1 and going["now"].startswith("2001-05-06T07:09:")
    assert abs(said(clock.delete("/clock"))["offset"]) < 1


def test_a_moment_set_and_stopped_at_once_is_that_moment():
    """A clock that is set and stopped in one request shows exactly that time, and goes on from there."""
    clock = Clock()
    clock.set(1000, freeze=True)
    assert clock.now() == 1000
    clock.set(2000)
    assert clock.now() == 2000
    clock.set(2000, freeze=False)
    assert 2000 <= clock.now() < 60_000


def test_tokens_end_by_this_clock(clock, first, ada):
    """Tokens of both platforms expire by this clock, and are valid again when it is set back."""
    bearer, access = ada.token, "/check-access/check-general-access"
    said(clock.post("/clock", json={"advance": 301}))
    refused = ada.ask("registry", "GET", access, token=bearer)
    assert said(refused, 401)["detail"] == "Could not validate credentials"
    first.get("/1/artifacts")
    said(clock.post("/clock", json={"advance": 366 * 24 * 3600}))
    assert first.call("GET", "/1/artifacts", 401).headers["WWW-Authenticate"].endswith('error="invalid_token"')
    clock.delete("/clock")
    first.get("/1/artifacts")
    said(ada.ask("registry", "GET", access, token=bearer))


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


def test_a_clock_that_stands_holds_no_order(clock, first):
    """How long an order waits for its start goes by the machine's time."""
    said(clock.post("/like", json={"like": "production", "speed": 100}))
    said(clock.post("/clock", json={"freeze": True}))
    assert first.finished(first.order("echo", message="a"))["status"] == "succeeded"
    clock.delete("/like")


def test_the_control_object_sets_the_clock(local_platform, clock, monkeypatch):
    """The control object of the fixture `embedded_platform` can set the clock, whatever proxy the shell names."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    known = local_platform.known()
    place = (local_platform.url, local_platform.root, known["instance"], local_platform.environment, known["control"])
    control = PlatformControl(EmbeddedPlatform(*place))
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
    ids = [caller.create(1)["id"], caller.add("urn:t:seeded", {}), order["id"], job["id"]]
    session = template(home.user())["register_create_activity_session_id"]
    return [*ids, job["account"], order["service"], session]


@pytest.mark.long
def test_a_seed_gives_the_same_ids_and_the_clock_stays(local_home, tmp_path, request):
    """Two empty directories with one seed make the same ids, also over a restart, but have different instance ids."""
    one, other, third = (type(local_home)(tmp_path / name) for name in ("one", "other", "third"))
    for home in (one, other, third):
        request.addfinalizer(home.close)
    begun = made(one.start("--seed", "7"))
    with one.control() as control:
        said(control.post("/clock", json={"now": THEN, "freeze": True}))
    one.stop()
    one.start()
    with one.control() as control:
        assert said(control.get("/clock"))["now"] == "2001-05-06T07:08:09.000Z"
        control.delete("/clock")
    went_on = made(one)
    assert made(other.start("--seed", "7")) == begun
    # The workers of the first template draw ids of Provena meanwhile, at their own pace.
    assert made(other)[:-1] == went_on[:-1]
    assert len({*begun, *went_on}) == 12  # account and service are the same ones
    assert uuid.UUID(begun[0].rsplit(":", 1)[1]).version == 4
    assert one.known()["instance"] != other.known()["instance"]
    assert not set(made(third.start("--seed", "8"))) & set(begun)
