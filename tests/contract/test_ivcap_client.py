"""The official Python client works on the embedded IVCAP, and reads from it what our client reads."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from listings import all_of

from ivcap_flows import local
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.wire import Wire
from ivcap_flows.local import PlatformControl
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the official client finds its files and puts what it downloads."""
    made = tmp_path_factory.mktemp("official")
    (made / "upload.bin").write_bytes(os.urandom(SIZE))
    (made / "empty.bin").touch()
    return made


@pytest.fixture(scope="module")
def uploaded(ours: IvcapClient, folder: Path) -> str:
    """An artifact that our client uploaded before the official client came."""

    async def upload() -> str:
        record = await ours.artifacts.create(name="our own", media_type="text/csv", size=SIZE)
        await ours.artifacts.send(record, folder / "upload.bin", offset=0)
        return record.urn

    return run(upload())


@pytest.fixture(scope="module")
def told(served: Any, official: Any, folder: Path, uploaded: str) -> dict[str, Any]:
    """What the official client did and read."""
    PlatformControl(local.ensure(served.directory)).register(HERE / "survey.yaml", HERE / "note.yaml")
    found: dict[str, Any] = official("ivcap-client", "ivcap_official.py", folder)
    return found


def plain(value: Any, name: str = "") -> Any:
    """A record of ours, or one of the official client's as JSON, by the names of the wire; nulls left out."""
    if isinstance(value, Wire):
        named = {"schema" if field == "schema_urn" else field.replace("_", "-"): part for field, part in value}
        return {field: plain(part, field) for field, part in named.items() if part is not None}
    if isinstance(value, dict):
        return {field: plain(part, field) for field, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, str) and name.endswith(("-at", "-from", "-to")):
        value = datetime.fromisoformat(value)
    return value.astimezone(timezone.utc) if isinstance(value, datetime) else value


def agree(theirs: dict[str, Any], record: Wire, *, unread: tuple[str, ...] = ()) -> None:
    """Each field of an object of the official client has the value that our record has; `unread` it never fills."""
    own = plain(record)
    found = {name.replace("_", "-"): part for name, part in theirs.items() if name not in unread}
    assert plain(found) == {name: own.get(name) for name in found}


def known(records: list[Any], listed: list[dict[str, Any]]) -> list[Any]:
    """Of our records those that were there when the official client listed its own."""
    ids = {item["id"] for item in listed}
    return [record for record in records if record.urn in ids]


def test_each_method_of_the_client_is_used(told, record_property):
    """What users can do with the official client works here."""
    record_property("official ivcap-client", told["calls"])
    unused = {name for name, count in told["calls"].items() if not count and name.startswith("IVCAP.")}
    assert unused == {"IVCAP.url"}


def test_services_are_listed_and_read_alike(told, ours):
    """The same list, each field of a service with parameters of all types, and the classes made of request schemas."""
    theirs = told["services"]
    listed = known(run(all_of(ours.services.list(order_desc=False))), theirs["listed"])
    assert {"echo", "sleep", "fail"} < {service.name for service in listed}
    assert len(listed) == len(theirs["listed"])
    for item, service in zip(theirs["listed"], listed, strict=True):
        agree(item, service)
    ordered = known(run(all_of(ours.services.list(order_by="name", order_desc=True))), theirs["listed"])[:2]
    assert theirs["newest"] == [service.urn for service in ordered]
    survey = run(ours.services.by_name("contract-survey"))
    assert plain(theirs["raw"]) == plain(survey)
    agree(theirs["survey"], survey)
    assert theirs["status"] == survey.status == "active"
    assert theirs["unknown"] == "ResourceNotFound"
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
    assert theirs["tool"]["fn_schema"] == run(ours.services.request_schema(survey.urn))
    schema = run(ours.services.request_schema(run(ours.services.by_name("contract-note")).urn))
    assert theirs["model"] == {
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


def test_jobs_end_as_they_were_asked_to(told, ours):
    """Deferred, within the time-out, after the time-out, awaited; a failure has its message. Both list them alike."""
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
    echo = run(ours.services.by_name("echo")).urn
    listed = known(run(all_of(ours.jobs.list(echo))), told["jobs"]["listed"])
    assert plain(told["jobs"]["listed"]) == plain(listed)
    assert {told["jobs"][how]["raw"]["id"] for how in ("deferred", "direct", "awaited")} == {job.urn for job in listed}


def test_uploads_arrive_whole(told, ours, served, folder, tmp_path):
    """Whole, in chunks, from a stream, empty and as a tar: our client downloads the bytes that were sent. Each chunk
    takes one request, a file that is known or empty none.
    """
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
    control = PlatformControl(local.ensure(served.directory))
    sent = {
        name: len(control.requests("PATCH", f"/1/artifacts/{one['id'].rpartition(':')[2]}/blob"))
        for name, one in read.items()
        if name != "tar"
    }
    assert sent == {"whole": 1, "chunked": -(-SIZE // CHUNK), "stream": 1, "empty": 0}


def test_artifacts_are_listed_and_downloaded_alike(told, ours, uploaded, folder, tmp_path):
    """The same list in the same order, with the artifact that our client uploaded; the same bytes and aspects."""
    theirs = told["artifacts"]
    at_that_time = set(theirs["listed"])
    listed = [each for each in run(all_of(ours.artifacts.list(order_desc=False))) if each.urn in at_that_time]
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
    [content] = theirs["metadata"]
    found = ours.aspects.list(entity=theirs["read"]["whole"]["id"], schema="urn:contract:schema:note.1")
    assert [each.content["text"] for each in run(all_of(found))] == [content["text"]] == ["of the whole"]


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
    products = run(all_of(ours.orders.products(order.urn)))
    assert plain(theirs["products"]) == plain(products)
    assert [(each.name, each.size) for each in products] == [("titles.txt", 12)]
    listed = known(run(all_of(ours.orders.list(order_desc=False))), theirs["listed"])
    for item, record in zip(theirs["listed"], listed, strict=True):
        agree(item, record, unread=never)
    assert order.urn in {record.urn for record in listed}


def test_aspects_are_written_and_read_alike(told, ours):
    """One that was replaced, one that is active, one that was retracted: all fields, and the list at each moment
    between the writes. Long lists are paged in both directions, and by a path into the content.
    """
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
    listed = run(all_of(ours.aspects.list(entity=theirs["entity"])))
    for item, record in zip(theirs["listed"], listed, strict=True):
        agree(item, record)
    assert theirs["wildcard"] == [second.urn]
    one, two, three = (each.urn for each in records)
    expected = {"before": [one], "between": [two], "with_all": [three, two], "now": [two]}
    assert theirs["at"] == expected
    for name, moment in theirs["moments"].items():
        at_time = None if moment is None else datetime.fromisoformat(moment)
        listed = run(all_of(ours.aspects.list(entity=theirs["entity"], at_time=at_time)))
        assert [each.urn for each in listed] == expected[name], name
    many = theirs["entity"] + ":many"
    assert theirs["many"] == [each.content["n"] for each in run(all_of(ours.aspects.list(entity=many)))]
    assert theirs["many"] == list(range(54, -1, -1))
    oldest = run(all_of(ours.aspects.list(entity=many, order_direction="ASC", limit=52)))
    assert theirs["oldest"] == [each.content["n"] for each in oldest] == list(range(52))
    matching = run(all_of(ours.aspects.list(entity=many, content_path="$.n ? (@ >= 53)")))
    assert theirs["matching"] == [each.content["n"] for each in matching] == [54, 53]


def test_collections_are_aspects_that_both_read(told, ours):
    """Made, renamed, filled, one item removed, another retracted with all; its past is kept."""
    theirs, schema = told["collections"], "urn:ivcap:schema:collection"
    assert (theirs["added"], theirs["removed"]) == ([True, True, True, False], [True, False])
    items = run(all_of(ours.aspects.list(entity=theirs["urn"], schema=f"{schema}-item.1")))
    assert theirs["items"] == [[each.urn, each.content["item"]] for each in items]
    assert [item for _, item in theirs["items"]] == ["urn:contract:item:2", "urn:contract:item:0"]
    assert theirs["items_before"] == [f"urn:contract:item:{n}" for n in (2, 1, 0)]
    [definition] = run(all_of(ours.aspects.list(entity=theirs["urn"], schema=f"{schema}.1")))
    before = run(ours.aspects.read(run(ours.aspects.read(definition.urn)).replaces))
    assert theirs["name"] == definition.content["name"] == "Ocean survey, second"
    assert theirs["name_before"] == before.content["name"] == "Ocean survey"
    assert theirs["found"] == [[theirs["urn"]]] * 2
    assert theirs["retracted"] == 2
    assert run(all_of(ours.aspects.list(entity=theirs["gone"]))) == []
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


def test_agents_search_and_secrets_work(told, ours):
    """An agent is a service that answers; a search finds by content; secrets are listed over pages."""
    theirs = told["others"]
    assert (theirs["agent"], theirs["inline"]) == ({"message": "agent"}, "inline")
    assert theirs["found"] == ["urn:contract:place:10"] == run(all_of(ours.search(theirs["program"])))
    assert set(theirs["secrets"]) <= set(theirs["listed"])
    assert theirs["listed"] == [each.secret_name for each in run(all_of(ours.secrets.list()))]
