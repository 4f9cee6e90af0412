"""The official Python client works on the embedded IVCAP, and reads from it what our client reads."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from contract_values import agree, gather, plain

from ivcap_flows import local
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.local.remote import PlatformControl
from ivcap_flows.loop import run

pytestmark = [
    pytest.mark.contract,
    pytest.mark.long,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the official IVCAP client needs Python 3.11"),
]

HERE = Path(__file__).parent
SIZE = 300_000
CHUNK = 64 * 1024


@pytest.fixture(scope="module")
def ours(served: Any) -> Iterator[IvcapClient]:
    """Our client of the same account."""
    client = IvcapClient(served.environment["IVCAP_URL"], StaticToken(served.environment["IVCAP_JWT"]))
    yield client
    run(client.aclose())


@pytest.fixture(scope="module")
def folder(official_folder: Path) -> Path:
    """Where the official client finds its files and puts what it downloads."""
    return official_folder


@pytest.fixture(scope="module")
def told(by_method: dict[str, Any]) -> dict[str, Any]:
    """What the official client did and read."""
    return by_method


def known(records: list[Any], listed: list[dict[str, Any]]) -> list[Any]:
    """Of our records those that were there when the official client listed its own."""
    ids = {item["id"] for item in listed}
    return [record for record in records if record.urn in ids]


def test_services_are_listed_and_read_alike(told, ours):
    """The same list, and each field of a service with parameters of all types."""
    theirs = told["services"]
    listed = known(run(gather(ours.services.list(order_desc=False))), theirs["listed"])
    assert {"echo", "sleep", "fail"} < {service.name for service in listed}
    assert len(listed) == len(theirs["listed"])
    for item, service in zip(theirs["listed"], listed, strict=True):
        agree(item, service)
    ordered = known(run(gather(ours.services.list(order_by="name", order_desc=True))), theirs["listed"])[:2]
    assert theirs["newest"] == [service.urn for service in ordered]
    survey = run(ours.services.by_name("contract-survey"))
    assert plain(theirs["raw"]) == plain(survey)
    agree(theirs["survey"], survey)
    assert theirs["status"] == survey.status == "active"
    assert theirs["unknown"] == "ResourceNotFound"


def test_parameters_mean_the_same(told, ours):
    """Types, units, options, defaults, and which of them are mandatory."""
    survey = run(ours.services.by_name("contract-survey"))
    theirs = told["services"]
    assert [each["name"] for each in theirs["parameters"].values()] == [each.name for each in survey.parameters]
    for definition in survey.parameters:
        found = theirs["parameters"][definition.name.replace("-", "_")]
        assert found == {
            "name": definition.name,
            "type": definition.type,
            "description": definition.description,
            "label": definition.label,
            "unit": definition.unit,
            "default": definition.default,
            "is_constant": bool(definition.constant),
            "is_unary": bool(definition.unary),
            "is_optional": not definition.mandatory,
            "options": [{"value": each.value, "description": each.description} for each in definition.options],
        }
    assert theirs["mandatory"] == sorted(each.name for each in survey.parameters if each.mandatory)


def test_request_models_are_the_same(told, ours):
    """The schema word for word, and the fields and defaults of the class that the official client makes of it."""
    survey, note = (run(ours.services.by_name(name)).urn for name in ("contract-survey", "contract-note"))
    assert told["services"]["tool"]["fn_schema"] == run(ours.services.request_schema(survey))
    schema = run(ours.services.request_schema(note))
    assert told["services"]["model"] == {
        name: None if name in schema["required"] else [field.get("default")]
        for name, field in schema["properties"].items()
    }


@pytest.mark.parametrize("how", ["deferred", "direct", "slow", "failing", "note", "survey", "awaited"])
def test_a_job_is_read_alike(told, ours, how):
    """However it was requested and however it ended, both read the same record."""
    raw = told["jobs"][how]["raw"]
    job = run(ours.jobs.read(raw["service"], raw["id"], with_request=True))
    assert plain(raw) == plain(job)
    assert job.done
    if how in ("deferred", "direct"):
        # After a reply that was the result itself the official client knows no more of the job.
        agree({name: part for name, part in told["jobs"][how]["fields"].items() if part is not None}, job)
    if how != "failing":
        assert told["jobs"][how]["result"] == job.result_content


def test_jobs_end_as_they_were_asked_to(told):
    """Deferred, within the time-out, after the time-out, awaited; a failure has its message."""
    jobs = told["jobs"]
    assert jobs["deferred"]["result"] == {"message": "later"}
    assert jobs["direct"]["result"] == {"message": "now"}
    assert (jobs["slow"]["early"], jobs["slow"]["result"]) == ("unknown", {"seconds": 1.5})
    assert (jobs["awaited"]["succeeded"], jobs["awaited"]["result"]) == (True, {"message": "awaited"})
    assert jobs["note"]["result"] == {"text": "x", "times": 2, "tag": None}
    assert (jobs["failing"]["status"], jobs["failing"]["succeeded"]) == ("failed", False)
    assert jobs["failing"]["raw"]["error-message"] == "no luck"
    assert (jobs["refused"]["status"], "no luck now" in jobs["refused"]["content"]) == (400, True)
    [product] = jobs["survey"]["raw"]["products"]["items"]
    assert product["id"] == jobs["survey"]["result"]["titles"]


def test_jobs_of_a_service_are_listed_alike(told, ours):
    """Item by item, newest first."""
    echo = run(ours.services.by_name("echo")).urn
    listed = known(run(gather(ours.jobs.list(echo))), told["jobs"]["listed"])
    assert plain(told["jobs"]["listed"]) == plain(listed)
    assert {told["jobs"][how]["raw"]["id"] for how in ("deferred", "direct", "awaited")} == {job.urn for job in listed}


def test_uploads_arrive_whole(told, ours, folder, tmp_path):
    """Whole, in chunks, from a stream, empty and as a tar: our client downloads the bytes that were sent."""
    content = (folder / "upload.bin").read_bytes()
    read = told["artifacts"]["read"]
    for name, sent in {"whole": content, "chunked": content, "stream": b"a,b\n1,2\n", "empty": b""}.items():
        record = run(ours.artifacts.read(read[name]["id"]))
        agree(read[name], record)
        assert record.ready
        back = run(ours.artifacts.download(record.urn, tmp_path / name))
        assert (back.size, back.sha256) == (len(sent), hashlib.sha256(sent).hexdigest())
    agree(read["tar"], run(ours.artifacts.read(read["tar"]["id"])))
    assert (folder / "untarred" / "upload.bin").read_bytes() == content
    assert (folder / "untarred" / "note.txt").read_bytes() == b"x"
    assert told["artifacts"]["again"] == [read["whole"]["id"]] * 2


def test_uploads_take_as_many_requests_as_they_have_chunks(told, served):
    """One request for the whole file, one for each chunk, none for the file that is known or empty."""
    control = PlatformControl(local.ensure(served.directory))
    sent = {
        name: len(control.requests("PATCH", f"/1/artifacts/{read['id'].rpartition(':')[2]}/blob"))
        for name, read in told["artifacts"]["read"].items()
        if name != "tar"
    }
    assert sent == {"whole": 1, "chunked": -(-SIZE // CHUNK), "stream": 1, "empty": 0}


def test_artifacts_are_listed_and_downloaded_alike(told, ours, uploaded, folder, tmp_path):
    """The same list in the same order, with the artifact that our client uploaded; the same bytes."""
    theirs = told["artifacts"]
    at_that_time = set(theirs["listed"])
    listed = [each for each in run(gather(ours.artifacts.list(order_desc=False))) if each.urn in at_that_time]
    assert list(theirs["listed"]) == [record.urn for record in listed]
    assert uploaded in at_that_time
    for urn, item in theirs["listed"].items():
        agree(item, run(ours.artifacts.read(urn)))
        assert theirs["sha256"][urn] == run(ours.artifacts.download(urn, tmp_path / "back")).sha256
        (tmp_path / "back").unlink()
    content = (folder / "upload.bin").read_bytes()
    assert (folder / "whole.bin").read_bytes() == (folder / "chunked.bin").read_bytes() == content
    assert (theirs["url"], theirs["streamed"]) == ("data:text/csv;base64,YSxiCjEsMgo=", SIZE)
    assert theirs["filtered"] == [theirs["read"]["chunked"]["id"]]
    assert theirs["first"] == [theirs["read"]["whole"]["id"], theirs["read"]["tar"]["id"]]
    assert theirs["missing"] == 404


def test_what_is_said_of_an_artifact_is_read_alike(told, ours):
    """An aspect that the official client hung on an artifact."""
    [content] = told["artifacts"]["metadata"]
    found = ours.aspects.list(entity=told["artifacts"]["read"]["whole"]["id"], schema="urn:contract:schema:note.1")
    assert [each.content for each in run(gather(found))] == [content]
    assert content["text"] == "of the whole"


def test_orders_are_placed_and_read_alike(told, ours):
    """Placed by the generated call, read by the client's methods: record, parameters and products are ours."""
    theirs = told["orders"]
    order = run(ours.orders.read(theirs["placed"]["id"]))
    assert plain(theirs["raw"]) == plain(order)
    # The official client looks for these times under names that the wire does not have.
    never = ("ordered_at", "started_at")
    agree(theirs["fields"], order, unread=never)
    assert theirs["status"] == order.status == "succeeded"
    own = {name.replace("-", "_"): value for name, value in order.values().items() if not name.startswith("cayp-")}
    assert theirs["parameters"] == own == {"title": "south", "sea_level": "0.5", "count": "2"}
    products = run(gather(ours.orders.products(order.urn)))
    assert plain(theirs["products"]) == plain(products)
    assert [(each.name, each.size) for each in products] == [("titles.txt", 12)]
    listed = known(run(gather(ours.orders.list(order_desc=False))), theirs["listed"])
    for item, record in zip(theirs["listed"], listed, strict=True):
        agree(item, record, unread=never)
    assert order.urn in {record.urn for record in listed}


def test_aspects_are_written_and_read_alike(told, ours):
    """One that was replaced, one that is active, one that was retracted: all fields, and the list of them."""
    theirs = told["aspects"]
    records = [run(ours.aspects.read(each["id"])) for each in theirs["read"]]
    assert plain(theirs["read"]) == plain(records)
    first, second, third = records
    assert [first.active, second.active, third.active] == [False, True, False]
    assert (second.replaces, third.replaces) == (first.urn, None)
    assert first.content["deep"] == {"list": [1, {"é": None}]}
    for fields, content, record in zip(theirs["fields"], theirs["contents"], records, strict=True):
        agree(fields, record)
        assert content == record.content
    listed = run(gather(ours.aspects.list(entity=theirs["entity"])))
    for item, record in zip(theirs["listed"], listed, strict=True):
        agree(item, record)
    assert theirs["wildcard"] == [second.urn]


def test_aspects_are_found_at_their_time(told, ours):
    """The same list at each moment between the writes: nobody's later word is in an earlier one."""
    theirs = told["aspects"]
    first, second, third = (each["id"] for each in theirs["read"])
    expected = {"before": [first], "between": [second], "with_all": [third, second], "now": [second]}
    assert theirs["at"] == expected
    for name, moment in theirs["moments"].items():
        at_time = None if moment is None else datetime.fromisoformat(moment)
        listed = run(gather(ours.aspects.list(entity=theirs["entity"], at_time=at_time)))
        assert [each.urn for each in listed] == expected[name], name


def test_long_lists_are_paged_alike(told, ours):
    """More than the page of fifty, in both directions, and by a path into the content."""
    theirs, many = told["aspects"], told["aspects"]["entity"] + ":many"
    assert theirs["many"] == [each.content["n"] for each in run(gather(ours.aspects.list(entity=many)))]
    assert theirs["many"] == list(range(54, -1, -1))
    oldest = run(gather(ours.aspects.list(entity=many, order_direction="ASC", limit=52)))
    assert theirs["oldest"] == [each.content["n"] for each in oldest] == list(range(52))
    matching = run(gather(ours.aspects.list(entity=many, content_path="$.n ? (@ >= 53)")))
    assert theirs["matching"] == [each.content["n"] for each in matching] == [54, 53]


def test_collections_are_aspects_that_both_read(told, ours):
    """Made, renamed, filled, one item removed, another retracted with all; its past is kept."""
    theirs, schema = told["collections"], "urn:ivcap:schema:collection"
    assert (theirs["added"], theirs["removed"]) == ([True, True, True, False], [True, False])
    items = run(gather(ours.aspects.list(entity=theirs["urn"], schema=f"{schema}-item.1")))
    assert theirs["items"] == [[each.urn, each.content["item"]] for each in items]
    assert [item for _, item in theirs["items"]] == ["urn:contract:item:2", "urn:contract:item:0"]
    assert theirs["items_before"] == [f"urn:contract:item:{n}" for n in (2, 1, 0)]
    [definition] = run(gather(ours.aspects.list(entity=theirs["urn"], schema=f"{schema}.1")))
    before = run(ours.aspects.read(run(ours.aspects.read(definition.urn)).replaces))
    assert theirs["name"] == definition.content["name"] == "Ocean survey, second"
    assert theirs["name_before"] == before.content["name"] == "Ocean survey"
    assert theirs["found"] == [theirs["urn"]]
    assert theirs["retracted"] == 2
    assert run(gather(ours.aspects.list(entity=theirs["gone"]))) == []
    assert theirs["of_file"] == [{"artifact": theirs["file"], "collection": theirs["urn"]}]


def test_accounts_are_kept_apart(told, ours, served):
    """The second account is another one, does not see the first one's things, and an expired token is refused."""
    theirs = told["accounts"]
    second = IvcapClient(served.environment["IVCAP_URL"], StaticToken(served.environment["IVCAP_JWT_2"]))
    try:
        assert [theirs["mine"], theirs["theirs"]] == [run(ours.account()), run(second.account())]
    finally:
        run(second.aclose())
    assert theirs["mine"] != theirs["theirs"]
    assert (theirs["foreign"], theirs["expired"]) == (404, 401)
    assert theirs["slash"] == "echo"
