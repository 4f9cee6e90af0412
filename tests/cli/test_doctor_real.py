"""`doctor --real`: what a deployment answers that the clients do not expect, in a text that can be sent."""

import asyncio
import contextlib
import math
import os
import re
import socket
import sqlite3
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from changing_proxy import ChangingProxy
from pydantic import SecretStr
from registration_rows import make_items

from ivcap_flows import local, loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.cli.checks import deployment
from ivcap_flows.cli.checks.deployed_ivcap import IVCAP_CHECKS
from ivcap_flows.cli.checks.deployed_provena import PROVENA_CHECKS
from ivcap_flows.cli.checks.deployment import Check, check_deployment
from ivcap_flows.http import session
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.http.retry import Backoff
from ivcap_flows.identity import INTENT_SCHEMA, key_entity
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.register import register
from ivcap_flows.provena.collection_format import AccessInfo
from ivcap_flows.provena.models import Model, ModelRunRecord, Version
from ivcap_flows.settings import Settings

READS = re.compile(
    r"(GET|HEAD) .*"
    r"|POST /1/search\?.*"
    r"|POST /provena/registry/registry/\w+/\w+/list"
    r"|POST /provena/jobs/jobs/user/list"
    r"|POST /provena/keycloak/realms/provena/protocol/openid-connect/token"  # an access token for the offline one
)
"""The requests that write nothing."""

PRIVATE = ("north-2031", "order of ada", "ward", "Example", "Registered by ada", "s3cret-name")
"""Names that the account's things have."""


async def fill_ivcap(client, upper, series):
    """An artifact, an order with a product, a job with a result, aspects on two pages, a queue and a secret."""
    for number in range(51):
        await client.aspects.add(key_entity(f"k1:{number}"), INTENT_SCHEMA, {"word": f"ward {number}"})
    series.write_text("year\n2031\n")
    artifact = await client.artifacts.create(name="north-2031.csv", media_type="text/csv", size=10)
    await client.artifacts.send(artifact, series)
    order = await client.orders.place(upper, {"series": artifact.urn}, name="order of ada")
    echo = (await client.services.by_name("echo")).urn
    job = await client.jobs.request(echo, {"message": "ward"})
    while not (await client.orders.read(order.urn)).done or not (await client.jobs.read(echo, job.urn)).done:
        await asyncio.sleep(0.1)
    await client.queues.create("ward")
    await client.secrets.set("s3cret-name", SecretStr("s3cret-value-of-ada"))


async def fill_provena(client):
    """An item of each subtype, one of them in two versions, a dataset that is elsewhere, and a model run."""
    items = await make_items(client)
    dataset = (await client.datastore.fetch_dataset(items.datasets[0])).info.collection_format
    uri = "https://example.org/ward"
    elsewhere = AccessInfo(reposited=False, uri=uri, description="A ward.")
    info = dataset.dataset_info.model_copy(update={"access_info": elsewhere, "name": "ward"})
    await client.datastore.mint(dataset.model_copy(update={"dataset_info": info}))
    await client.registry.version(Model, items.model, reason="ward")
    job = await client.prov.register(ModelRunRecord(**items.record(0, display_name="Registered by ada")))
    await client.jobs.wait(job, 30)
    while not [one async for one in client.registry.list(Version)] or [
        row.status async for row in client.jobs.list() if not row.done
    ]:
        await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """Platforms of this file's own, on which each check has something to look at."""
    folder = tmp_path_factory.mktemp("deployed")
    embedded = local.ensure(folder / "state", idle=3600)
    (folder / "setup.cfg").touch()
    (folder / "services_of_doctor.py").write_text(
        "def upper(request, job):\n"
        "    print('ward')\n"
        "    job.add_product('upper.csv', job.read_artifact(request['series']).upper(), 'text/csv')\n"
    )
    upper = register(
        embedded.url,
        embedded.environment["IVCAP_JWT"],
        {
            "name": "ward-upper",
            "entry": "services_of_doctor:upper",
            "parameters": [{"name": "series", "type": "artifact"}],
        },
        folder / "services.yaml",
    )

    async def fill():
        settings = Settings(**embedded.environment)
        async with IvcapCredentials.from_environment(settings).get_client() as client:
            await fill_ivcap(client, upper, folder / "north-2031.csv")
        async with ProvenaCredentials.from_environment(settings).get_client() as client:
            await fill_provena(client)

    loop.run(fill())
    yield embedded
    embedded.end()


@pytest.fixture(scope="module")
def between(deployed):
    proxy = ChangingProxy(deployed.url)
    with proxy.running():
        yield proxy


@pytest.fixture
def proxy(between, deployed, monkeypatch):
    """The proxy in front of these platforms, to which the environment leads."""
    between.forget()
    for name, value in deployed.environment.items():
        monkeypatch.setenv(name, value.replace(deployed.url, between.url))
    return between


@pytest.fixture
def secrets(deployed):
    return [value for name, value in deployed.environment.items() if "JWT" in name or "TOKEN" in name]


@pytest.fixture
def doctor(ivcap_flows, secrets, proxy):
    """`doctor --real` on the platforms behind the proxy. No token is ever printed, nor an e-mail address."""

    def run(*words):
        said = ivcap_flows("doctor", "--real", *words)
        told = said.out + said.err
        assert not any(secret in told for secret in [*secrets, "s3cret-value-of-ada"])
        assert "@" not in told
        return said

    return run


def outcomes(said, *left_out):
    return {
        f"{found['platform']}: {found['check']}": found["outcome"]
        for found in said.json
        if found["outcome"] not in left_out
    }


def contents(folder):
    """All that the platforms keep."""
    found = {}
    for path in sorted(folder.glob("*.sqlite")):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found[path.name] = list(connection.iterdump())
    return found | {str(path): path.read_bytes() for path in sorted((folder / "blobs").rglob("*")) if path.is_file()}


def test_the_embedded_platforms_are_as_expected(doctor, proxy, deployed):
    """Each check has something to look at and finds it in order. Only what reads is requested, and nothing on the
    platforms changes."""
    folder = Directory(deployed.directory).root
    before = contents(folder)
    assert any("ward 50" in line for line in before["ivcap.sqlite"])
    said = doctor("--json")
    assert outcomes(said, "ok") == {}
    assert said.status == 0 and len(said.json) == len(IVCAP_CHECKS) + len(PROVENA_CHECKS)
    assert [request for request in proxy.seen if not READS.fullmatch(request)] == []
    assert any("page=" in request for request in proxy.seen)
    assert contents(folder) == before
    assert not [found for found in said.json if "new" in found["note"]]


def test_the_text_can_be_sent(doctor, proxy, deployed):
    """It names nothing of the user's, says so, and where to send it. `--full` names where and who, too."""
    said = doctor()
    *_, count, left_out, send = said.out.splitlines()
    assert said.status == 0 and count.startswith("0 of ") and "Nothing was written" in count
    assert "names, ids, addresses" in left_out and "--full" in left_out
    assert send.endswith("open an issue with it at https://github.com/ivcap-works/ivcap-flows/issues.")
    text = said.out.replace(send, "")
    for word in (*PRIVATE, "embedded-user", "127.0.0.1", "urn:", "102.100.100", *re.findall(r"urn:\S+", str(deployed))):
        assert word not in text
    full = doctor("--full").out
    assert re.search("account:.*urn:ivcap:account:", full) and "embedded-user" in full


def json_of(change):
    """A change of the JSON of a reply."""

    def changed(given):
        value = given.json
        given.json = change(value) or value

    return changed


def every(change, items="items"):
    """A change of each item of a page."""
    return json_of(lambda page: [change(item) for item in page[items] or ()] and None)


def without(*names):
    return lambda thing: [thing.pop(name, None) for name in names] and None


def status(code, body=b'{"message": "of ada@example.org at ada.example.org"}'):
    def changed(given):
        given.status, given.body = code, body
        given.headers = {"content-type": "application/json", "date": given.headers["date"]}

    return changed


def web_page(given):
    given.headers["content-type"] = "text/html"
    given.body = b"<html><head><title>Log in to ada's place</title></head></html>"


def late(minutes):
    def changed(given):
        moment = datetime.now(timezone.utc) + timedelta(minutes=minutes)
        given.headers["date"] = format_datetime(moment, usegmt=True)

    return changed


def oldest_first(page):
    for number, aspect in enumerate(page["items"]):
        aspect["valid-from"] = f"2026-01-01T00:00:{number % 60:02}Z"


def jobs_oldest_first(page):
    for number, row in enumerate(page["jobs"]):
        row["created_timestamp"] = number


def same_page(given):
    """The first page again, whatever the cursor."""
    page = given.json
    page["items"] = page["items"][:1] * 2
    given.json = page


def empty(items="items"):
    return json_of(lambda page: page.update({items: [], "links": []}))


def cut_off(given):
    given.body = given.body[:2]


def of_nobody(given):
    value = given.json
    for record in value.get("items", [value]):
        record.pop("account", None)
    given.json = value


def by_address(given):
    if b"BEGINS_WITH" in given.asked:
        empty()(given)


ASPECT = r"GET /1/aspects\?entity=.*&"
LIST_OF = "POST /provena/registry/registry/.*/list"

IVCAP = {
    "clock": (".*", late(5.5), "differs", "5 minutes ahead of"),
    "version": (".*/openapi3.json", status(404), "not there", "404 to GET /1/openapi/openapi3.json"),
    "login": (".*/authinfo.yaml", status(404), "not there", "404"),
    "account": (".*/1/(orders|artifacts).*", of_nobody, "differs", "cannot be told"),
    "list of services": (r"GET /1/services2\?.*", every(without("name")), "differs", "no ServiceRecord has name"),
    "service": ("GET /1/services2/[^/]*", json_of(without("status")), "differs", "status"),
    "services by name": (r"GET /1/services2\?.*filter.*", status(400), "not there", "400"),
    "list of artifacts": (r"GET /1/artifacts\?.*", status(403), "refused", "403 to GET /1/artifacts"),
    "artifact": ("GET /1/artifacts/[^/]*", json_of(without("data-href")), "differs", "data-href"),
    "artifacts by name": (r"GET /1/artifacts\?.*filter.*", empty(), "differs", "does not find"),
    "content of an artifact": (
        ".*/blob",
        lambda given: setattr(given, "body", b"ye"),
        "differs",
        "2 bytes instead of 10",
    ),
    "list of orders": (r"GET /1/orders\?.*", web_page, "differs", "is no JSON, but a web page"),
    "order": ("GET /1/orders/[^/]*", json_of(without("account", "parameters")), "differs", "account, parameters"),
    "products of an order": (".*/products.*", status(405), "not there", "/1/orders/…/products"),
    "log of an order": (".*/logs", status(501), "not there", "501"),
    "jobs of all services": (
        r"GET /1/aspects\?schema=.*job.*",
        every(lambda aspect: aspect["content"].pop("requested-at", None)),
        "differs",
        "requested-at",
    ),
    "job": ("GET .*/jobs/[^/]*", json_of(without("id")), "differs", "wrong or missing id"),
    "jobs of a service": (r"GET .*/jobs\?.*", status(503), "no answer", "503"),
    "output of a job": (".*/output", status(405), "not there", "405"),
    "events of a job": (".*/events.*", status(404), "not there", "no events"),
    "list of aspects": (r"GET /1/aspects\?schema=.*", json_of(oldest_first), "differs", "newest first"),
    "aspect": ("GET /1/aspects/[^/]*", json_of(without("schema")), "differs", "schema"),
    "aspects by entity and schema": (f"{ASPECT}.*ASC.*", empty(), "differs", "does not find"),
    "aspects by a pattern": (f"{ASPECT}schema=[^&]*%25&.*", empty(), "differs", "does not find"),
    "aspects by content": (f"{ASPECT}.*content-path.*", status(400), "not there", "400"),
    "aspects of an earlier time": (".*", None, "differs", "later record"),
    "search": ("POST /1/search.*", status(404), "not there", "404"),
    "list of queues": (r"GET /1/queues\?.*", same_page, "differs", "comes twice"),
    "queue": ("GET /1/queues/[^/]*", json_of(without("total-messages")), "differs", "total-messages"),
    "list of secrets": ("GET /1/secrets/list.*", status(403), "refused", "403"),
}
"""Check -> the requests whose replies differ, how, and what is said of that."""

PROVENA = {
    "login": (".*/token", status(401, b'{"error": "invalid_grant"}'), "refused", ""),
    "clock": (".*", late(-7.5), "differs", "7 minutes behind"),
    "version": (".*/about/version", status(404), "not there", "404"),
    **{
        f"{name} API": (f"GET /provena/{place}/", status(404), "not there", "404")
        for name, place in {
            "auth": "auth",
            "registry": "registry",
            "prov": "prov",
            "job": "jobs",
            "data store": "data",
            "search": "search",
            "handle": "handle",
        }.items()
    },
    "person": (".*/link/user/lookup", json_of(lambda body: body.update(person_id=None)), "refused", "not linked"),
    "e-mail address": (".*", None, "refused", "no e-mail address"),
    "roles": (
        ".*/generate-access-report",
        json_of(
            lambda body: (
                [
                    role.update(access_granted=False)
                    for part in body["report"]["components"]
                    for role in part["component_roles"]
                ]
                and None
            )
        ),
        "refused",
        "lacks entity-registry-read, entity-registry-write",
    ),
    **{
        check.name: (LIST_OF, every(without("created_timestamp")), "differs", "created_timestamp")
        for check in PROVENA_CHECKS
        if check.name.startswith("list of ") and check.name != "list of jobs"
    },
    "datasets by their address": (LIST_OF, by_address, "differs", "does not find"),
    "list of jobs": ("POST .*/jobs/user/list", json_of(jobs_oldest_first), "differs", "newest first"),
    "job": ("GET .*/jobs/user/fetch.*", json_of(lambda body: body["job"].pop("status") and None), "differs", "status"),
    "search": (".*/search/entity-registry.*", status(500), "no answer", "500"),
    "lineage": (".*/explore/upstream.*", status(401), "refused", "401"),
    "CSV template": (".*/bulk/generate_template/csv.*", status(404), "not there", "404"),
}


def found_by(checks, name, credentials):
    [check] = [each for each in checks if each.name == name]

    async def look():
        async with credentials.get_client() as client:

            async def known():
                return client

            return await check_deployment("it", known, [check], full=False)

    return loop.run(look())[0]


DIFFERENT = {("IVCAP", name): case for name, case in IVCAP.items()} | {
    ("Provena", name): case for name, case in PROVENA.items()
}


def test_each_check_has_a_deployment_that_differs():
    """So a check that is taken from the tables is missed, and so is a new one without such a deployment."""
    assert [check.name for check in IVCAP_CHECKS] == list(IVCAP)
    assert {check.name for check in PROVENA_CHECKS} == set(PROVENA) and len(PROVENA_CHECKS) == len(PROVENA)


@pytest.mark.parametrize(("platform", "name"), DIFFERENT)
def test_what_differs_is_named(proxy, monkeypatch, platform, name):
    """By the check that is for it, with what it means for the user."""
    request, change, outcome, words = DIFFERENT[platform, name]
    if name == "account":
        monkeypatch.setattr("ivcap_flows.ivcap.client.claims", lambda header: {})
    if name == "e-mail address":
        monkeypatch.setattr("ivcap_flows.provena.client.claims", lambda header: {})
    if name == "aspects of an earlier time":
        proxy.ignored = "at-time=[^&]*&"
    if change is not None:
        proxy.on(request, change)
    block = IvcapCredentials if platform == "IVCAP" else ProvenaCredentials
    checks = IVCAP_CHECKS if platform == "IVCAP" else PROVENA_CHECKS
    found = found_by(checks, name, block.from_environment())
    assert (found.outcome, words in found.note) == (outcome, True), found
    assert found.means and found.wrong == (outcome == "differs" or not found_optional(checks, name))
    assert "ada" not in found.note


def found_optional(checks, name):
    return next(check.optional for check in checks if check.name == name)


def different(proxy):
    """IVCAP of a version that holds a token, an account without some rights, and Provena without some routes."""
    version = f"0.61 {os.environ['IVCAP_JWT']}"
    proxy.on(".*/openapi3.json", json_of(lambda body: body["info"].update(version=version)))
    proxy.on(r"GET /1/orders\?.*", every(without("ordered-at")))
    proxy.on(r"GET /1/queues\?.*", status(403))
    proxy.on("GET /1/artifacts/[^/]*", json_of(lambda body: body.update({"retention": "30d", "size": None})))
    proxy.on(".*/events.*", status(405))
    proxy.on("GET /1/secrets/list.*", web_page)
    proxy.on("GET /provena/search/", status(404))
    proxy.on(f"{LIST_OF}", every(lambda item: item.update(steward="ada"), "items"))


def test_a_deployment_that_differs_is_described(doctor, proxy):
    """Each difference in one line, with what it means for the user in the next; what is new alone is in order. A route
    that the package does without is not wrong."""
    different(proxy)
    said = doctor()
    lines = said.out.splitlines()
    assert said.status == 1
    for line, means in (
        ("differs        list of orders: no OrderRecord has ordered-at", "may not be found"),
        ("differs        artifact: no ArtifactRecord has size", "Tasks that read it fail."),
        ("refused        list of queues: 403 to GET /1/queues", "Tasks that use queues fail."),
        ("not there      events of a job: a job that has ended has no events", "Waits read the job instead"),
        ("differs        list of secrets: 200 to GET /1/secrets/list: the reply is no JSON, but a web page", "fail."),
        ("not there      search API: 404 to GET /", "Tasks that need this API fail until it answers."),
    ):
        [at] = [number for number, told in enumerate(lines) if told.startswith(line)]
        assert means in lines[at + 1] and lines[at + 1].startswith(" " * 15)
    assert any(line.startswith("ok             version: API 0.61 ") for line in lines)
    assert any(re.match("ok +list of STUDY: .*fields that are new: info.steward", line) for line in lines)
    assert lines[-3].startswith("3 of ") and "ada" not in said.out
    found = doctor("--json").json
    wrong = {each["check"] for each in found if each["wrong"]}
    assert wrong == {"list of orders", "artifact", "list of secrets"}


def test_a_platform_that_is_away_is_one_line(doctor, proxy, monkeypatch):
    """The checks of the other one go on."""
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))
        monkeypatch.setenv("IVCAP_URL", f"http://127.0.0.1:{away.getsockname()[1]}")
        said = doctor("--json")
    ivcap = [found for found in said.json if found["platform"] == "IVCAP"]
    assert said.status == 1
    assert [(found["check"], found["outcome"]) for found in ivcap] == [
        ("clock", "no answer"),
        ("the other checks", "not looked at"),
    ]
    assert len(said.json) == len(PROVENA_CHECKS) + 2 and "127.0.0.1" not in said.out


@pytest.mark.long
def test_a_slow_route_does_not_hold_up_the_others(doctor, proxy, monkeypatch):
    """It has no answer in time, and each check has its own time."""
    monkeypatch.setattr(deployment, "TIMEOUT", 5.0)
    proxy.on("GET /1/secrets/list.*", lambda given: setattr(given, "slow", 8.0))
    began = time.monotonic()
    said = doctor("--json")
    assert time.monotonic() - began < 120
    assert outcomes(said, "ok") == {"IVCAP: list of secrets": "no answer"}
    assert said.status == 0, "the package does without secrets"
    [found] = [found for found in said.json if found["outcome"] == "no answer"]
    assert found["note"] == "no reply within 5 s"


def test_a_refused_token_is_named_once_for_each_check(doctor, proxy, secrets, monkeypatch):
    """It is in no text, though the platform says it in its refusal."""
    token = os.environ["IVCAP_JWT"]
    proxy.on("GET /1/.*", status(401, f'{{"message": "{token} of ada@example.org"}}'.encode()))
    monkeypatch.setenv("PROVENA_OFFLINE_TOKEN", "made-up-token")
    for words in ("--full", "--json"):
        said = doctor(words)
        assert said.status == 1 and "made-up-token" not in said.out
    found = {each["check"]: each for each in said.json if each["platform"] == "Provena"}
    assert list(found) == ["login", "the other checks"] and found["login"]["outcome"] == "refused"
    assert outcomes(said)["IVCAP: list of orders"] == "refused"
    assert "ada" not in said.out


@pytest.mark.long
def test_an_empty_account_is_said_to_be_one(ivcap_flows, tmp_path, monkeypatch):
    """And nothing is wrong with it."""
    embedded = local.ensure(tmp_path / "empty", idle=60)
    try:
        for name, value in embedded.environment.items():
            monkeypatch.setenv(name, value)
        said = ivcap_flows("doctor", "--real", "--json")
    finally:
        embedded.end()
    found = outcomes(said)
    assert said.status == 0 and set(found.values()) == {"ok", "not looked at"}
    for name in ("IVCAP: list of orders", "IVCAP: job", "IVCAP: content of an artifact", "Provena: list of MODEL_RUN"):
        assert found[name] == "not looked at"
    [note] = [each["note"] for each in said.json if each["check"] == "list of orders"]
    assert note == "there is nothing to look at"


@pytest.mark.long
def test_a_platform_that_is_off_or_unknown_is_said_so(doctor, proxy, monkeypatch):
    """Off is in order; settings that are wrong are not."""
    for name in [name for name in os.environ if name.startswith("PROVENA_")]:
        monkeypatch.delenv(name)
    said = doctor("--json")
    assert said.status == 0 and outcomes(said, "ok") == {"Provena: settings": "not looked at"}
    monkeypatch.setenv("PROVENA_DOMAIN", "ada.example.org")
    said = doctor("--json")
    assert said.status == 1 and outcomes(said, "ok") == {"Provena: settings": "differs"}


@pytest.mark.long
def test_the_platforms_of_a_block_are_checked(doctor, proxy, prefect_api, monkeypatch):
    """And not those of the environment. One of the two may have no such block."""
    IvcapCredentials.from_environment().save("checked-real", overwrite=True)
    ProvenaCredentials.from_environment().save("checked-real", overwrite=True)
    monkeypatch.setenv("IVCAP_URL", "http://127.0.0.1:9")
    said = doctor("--block", "checked-real", "--json")
    assert said.status == 0 and outcomes(said, "ok") == {}
    IvcapCredentials.delete("checked-real")
    found = doctor("--block", "checked-real", "--json").json
    assert {each["platform"] for each in found} == {"Provena"}
    ProvenaCredentials.delete("checked-real")
    said = doctor("--block", "checked-real")
    assert said.status == 1 and "no credentials block named 'checked-real'" in said.err


def test_a_failure_is_named_soon_and_not_the_time_of_the_check(proxy, monkeypatch):
    """A request is repeated for seconds, though the client's own budget is a minute; other code keeps that."""
    monkeypatch.setattr(session, "Backoff", Backoff)
    proxy.on("GET /1/search.*|POST /1/search.*", status(503))
    began = time.monotonic()
    found = found_by(IVCAP_CHECKS, "search", IvcapCredentials.from_environment())
    assert "503" in found.note and time.monotonic() - began < 40
    assert retry_until.get() == math.inf


def test_a_reply_that_the_client_cannot_take_is_a_difference():
    """Whatever the client does with it: the class of the error is named, since its message may hold anything."""

    async def reads(client):
        raise KeyError("ada")

    async def client_of():
        return object()

    check = Check("reads", reads, "It fails.")
    for full, note in ((False, "the client fails with KeyError"), (True, "KeyError: 'ada'")):
        [found] = loop.run(check_deployment("IVCAP", client_of, [check], full=full))[-1:]
        assert (found.check, found.outcome, found.note) == ("reads", "differs", note)
