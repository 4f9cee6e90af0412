"""The client against scripted replies: Provena's manners of failing, paging, waiting, tokens."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ivcap_flows.errors import (
    BadRequestError,
    ConfigurationError,
    InputError,
    InvalidParameterError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
    WaitTimeoutError,
)
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.login import client_credentials, device_login, offline_token
from ivcap_flows.provena.models import Associations, Creation, DatasetInfo, ModelRunRecord, Organisation, Person

RECORD = ModelRunRecord(
    workflow_template_id="W",
    display_name="a run",
    description="of a model",
    associations=Associations(modeller_id="P"),
    start_time=1_700_000_000,
    end_time=1_700_003_600,
)
GOOD = {"success": True, "details": "fine"}
BAD = {"success": False, "details": "Could not find\n item. "}


def row(status: str, **over: object) -> dict[str, object]:
    return {"job": {"session_id": "S", "status": status, "payload": {}, **over}}


# Where the APIs are


def test_a_domain_gives_all_endpoints():
    """Hosts and realm are those of Provena's deployments; one may be replaced."""
    found = Endpoints.of(domain="example.org", realm="rrap", jobs="https://jobs.elsewhere.org/base/")

    assert found.model_dump() == {
        "realm": "https://auth.example.org/auth/realms/rrap",
        "auth": "https://auth-api.example.org",
        "registry": "https://registry-api.example.org",
        "prov": "https://prov-api.example.org",
        "jobs": "https://jobs.elsewhere.org/base",
        "datastore": "https://data-api.example.org",
        "search": "https://search.example.org",
        "handles": "https://handle.example.org",
    }


def test_missing_endpoints_are_named():
    """Without a domain every URL is needed, and the error lists those that are not there."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoints.of(realm="r", registry="https://registry.example.org", keycloak="https://auth.example.org")

    assert caught.value.missing == ["auth", "prov", "jobs", "datastore"]
    with pytest.raises(ConfigurationError, match="PROVENA_REALM"):
        Endpoints.of(domain="example.org")


async def test_the_platform_id_is_the_realm(scripted, client):
    """On loopback a server without `/_embedded` is a Provena like any other."""
    scripted.on("GET /_embedded", JSONResponse({"detail": "Not Found"}, 404))

    assert await client.platform() == f"{scripted.url}/keycloak/realms/test"
    assert client.visibility_delay == 600
    assert "authorization" not in scripted.sent("GET /_embedded")[0].headers


@pytest.mark.parametrize("status", [429, 503])
async def test_a_failure_does_not_tell_what_a_provena_is(scripted, client, status):
    """It is asked again: all keys depend on it."""
    scripted.on(
        "GET /_embedded",
        Response(status_code=status),
        {"instance": "urn:ivcap-flows:embedded:1", "visibility_delay": 2.0},
    )

    assert await client.platform() == "urn:ivcap-flows:embedded:1"


@pytest.mark.parametrize(
    "answer", [PlainTextResponse("<html>any page</html>"), JSONResponse({"detail": "Log in"}, 401)]
)
async def test_an_answer_of_something_else_is_no_answer(scripted, client, answer):
    """Such as that of a proxy."""
    scripted.on("GET /_embedded", answer)

    with pytest.raises(ProtocolError, match="See what answers there"):
        await client.platform()


async def test_an_embedded_platform_tells_its_own_id(scripted, client):
    """The embedded platform keeps its id when its port changes, and says how soon its effects show."""
    scripted.on("GET /_embedded", {"instance": "urn:ivcap-flows:embedded:1", "visibility_delay": 2.0})

    assert await client.platform() == "urn:ivcap-flows:embedded:1"
    assert client.visibility_delay == 2.0


# Tokens


async def test_an_offline_token_gives_access_tokens(scripted, client):
    """One refresh grant serves many requests, and the claims name the user."""
    scripted.on("GET /auth/link/user/lookup", {"person_id": "P", "success": True})

    assert await client.auth_api.linked_person() == "P"
    assert await client.auth_api.linked_person("bob") == "P"
    assert await client.username() == "ada"

    assert scripted.grants == [
        {"grant_type": "refresh_token", "client_id": "automated-access", "refresh_token": "offline"}
    ]
    assert [seen.query for seen in scripted.sent("GET /auth/link/user/lookup")] == [{}, {"username": "bob"}]


async def test_a_token_is_renewed_before_it_expires(scripted, client):
    """A token whose life is over is not sent; a new one is asked for first."""
    scripted.token_life = 1.0
    scripted.on("GET /auth/link/user/lookup", {"person_id": None, "success": False})
    await client.auth_api.linked_person()
    await asyncio.sleep(0.6)

    await client.auth_api.linked_person()

    assert len(scripted.grants) == 2


async def test_client_credentials_are_another_grant(scripted):
    """A service account needs the secret and no token of a user."""
    endpoints = scripted.endpoints
    scripted.on("GET /auth/link/user/lookup", {"person_id": None, "success": False})
    async with ProvenaClient(endpoints, client_credentials(endpoints.realm, "robot", SecretStr("s3cret"))) as client:
        await client.auth_api.linked_person()

    assert scripted.grants == [{"grant_type": "client_credentials", "client_id": "robot", "client_secret": "s3cret"}]


async def test_a_device_login_asks_the_realm(scripted):
    """The device flow goes to the realm's two endpoints and asks for what an offline token needs."""
    endpoints = scripted.endpoints
    begun = {"device_code": "d", "user_code": "ABCD", "verification_uri": "https://v", "interval": 0, "expires_in": 5}
    asked = "POST /keycloak/realms/test/protocol/openid-connect/auth/device"
    shown = []
    scripted.form_routes.add(asked)
    scripted.on(asked, begun)

    login = device_login(endpoints.realm, "automated-access", show=shown.append)
    async with ProvenaClient(endpoints, login) as client:
        assert await client.username() == "ada"

    assert [v.code for v in shown] == ["ABCD"]
    assert scripted.sent(asked)[0].body == {"client_id": "automated-access", "scope": "offline_access roles"}


async def test_a_revoked_offline_token_is_said_without_the_token(scripted):
    """The error names the next step and never the token."""
    endpoints = scripted.endpoints
    async with ProvenaClient(endpoints, offline_token(endpoints.realm, "c", SecretStr("revoked"))) as client:
        with pytest.raises(NotAuthorizedError) as caught:
            await client.username()

    assert "Offline session not active" in str(caught.value)
    assert "revoked" not in str(caught.value).replace("Offline session not active", "")
    assert "revoked" not in repr(client)


# Manners of failing


async def test_a_401_with_a_challenge_is_tried_once_more_with_a_fresh_token(scripted, client):
    """The token may have been revoked early; the second reply decides."""
    denied = scripted.refusal("Could not validate credentials", 401, challenge=True)
    scripted.on("POST /prov/model_run/register", denied, {"status": GOOD, "session_id": "S"})

    assert await client.prov.register(RECORD) == "S"

    first, second = scripted.sent("POST /prov/model_run/register")
    assert first.headers["authorization"] != second.headers["authorization"]


async def test_a_401_that_stays_concerns_the_token(scripted, client):
    """A missing role is a matter of the token, and the error says so."""
    scripted.on("POST /prov/model_run/register", scripted.refusal("lacks the correct role", 401, challenge=True))

    with pytest.raises(NotAuthorizedError) as caught:
        await client.prov.register(RECORD)

    assert caught.value.about == "token"
    assert "PROVENA_OFFLINE_TOKEN" in str(caught.value)
    assert len(scripted.sent("POST /prov/model_run/register")) == 2


async def test_a_401_without_a_challenge_concerns_the_item(scripted, client):
    """A closed or locked item is not helped by another token, so nothing is sent again."""
    scripted.on("GET /registry/registry/agent/person/fetch", scripted.refusal("The item is locked.", 401))

    with pytest.raises(NotAuthorizedError) as caught:
        await client.registry.fetch(Person, "P")

    assert (caught.value.about, caught.value.detail) == ("item", "The item is locked.")
    assert "token is good" in str(caught.value)
    assert len(scripted.sent("GET /registry/registry/agent/person/fetch")) == 1
    assert len(scripted.grants) == 1


async def test_success_false_is_an_error(scripted, client):
    """Status 200 with `success` false raises with the server's words on one line; of a fetch it means an absence."""
    scripted.on("GET /registry/registry/entity/model/fetch", {"status": BAD, "item": None})
    scripted.on("POST /registry/registry/agent/organisation/create", {"status": BAD, "created_item": None})

    with pytest.raises(NotFoundError) as absent:
        await client.registry.fetch("MODEL", "nothing")
    with pytest.raises(BadRequestError) as refused:
        await client.registry.create(Organisation, Organisation(display_name="o", name="o"))

    for caught in (absent, refused):
        assert (caught.value.status, caught.value.detail) == (200, "Could not find item.")
    assert str(absent.value) == "Provena found nothing for GET /registry/entity/model/fetch: Could not find item."
    assert str(refused.value) == "Provena refused POST /registry/agent/organisation/create: Could not find item."


async def test_a_422_names_each_field_and_echoes_no_document(scripted, client):
    """The list becomes one sentence; the caller's text in `ctx.doc` stays out."""
    detail = [
        {"loc": ["body", "inputs", 0, "dataset_type"], "msg": "not permitted", "type": "type_error.enum"},
        {"loc": ["body", 7], "msg": "Expecting value", "type": "value_error.jsondecode", "ctx": {"doc": "SECRET"}},
    ]
    scripted.on("POST /prov/model_run/register", scripted.refusal(detail, 422))

    with pytest.raises(InvalidParameterError) as caught:
        await client.prov.register(RECORD)

    assert "inputs.0.dataset_type: not permitted; 7: Expecting value" in str(caught.value)
    assert "SECRET" not in str(caught.value) + str(caught.value.data)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (PlainTextResponse("Internal Server Error", 500), UnavailableError, "Internal Server Error"),
        (JSONResponse({"message": "Endpoint request timed out"}, 504), UnavailableError, "Endpoint request timed out"),
        (JSONResponse({"detail": "Failed to validate id W."}, 400), BadRequestError, "Failed to validate id W."),
        (JSONResponse([1]), ProtocolError, "is no JSON object"),
        (JSONResponse({"status": GOOD}), ProtocolError, "session_id"),
        (PlainTextResponse("<html>"), ProtocolError, "is no JSON"),
    ],
)
async def test_a_registration_is_sent_once_whatever_comes_back(scripted, client, reply, error, words):
    """An ambiguous reply is the durable layer's to judge, by the `sent` that the error carries."""
    scripted.on("POST /prov/model_run/register", reply)

    with pytest.raises(error) as caught:
        await client.prov.register(RECORD)

    assert words in str(caught.value)
    assert caught.value.data.get("sent", True)
    assert len(scripted.sent("POST /prov/model_run/register")) == 1


async def test_nothing_is_sent_that_the_server_would_refuse(scripted, client):
    """Faults are found before the first byte."""
    with pytest.raises(InputError):
        await client.prov.register(RECORD.model_copy(update={"display_name": ""}))
    with pytest.raises(InputError):
        await client.prov.register_batch([])
    with pytest.raises(InputError):
        await client.prov.register_batch([RECORD.model_copy(update={"description": "x" * 80_000})] * 2)
    with pytest.raises(InputError):
        await client.registry.create("CREATE", Creation(display_name="c", created_item_id="x"))
    with pytest.raises(InputError):
        await client.registry.create("PERSON", Organisation(display_name="o", name="o"))
    with pytest.raises(InputError):
        await client.registry.fetch("SOFTWARE", "x")

    assert scripted.seen == []


async def test_a_create_gives_the_item_and_its_session(scripted, client):
    """The item is typed, the session may be absent."""
    item = {"id": "O", "item_subtype": "ORGANISATION", "display_name": "o", "name": "o"}
    scripted.on(
        "POST /registry/registry/agent/organisation/create",
        {"status": GOOD, "created_item": item, "register_create_activity_session_id": None},
    )

    created = await client.registry.create("ORGANISATION", Organisation(display_name="o", name="o"))

    assert (created.item.id, created.session_id) == ("O", None)
    assert scripted.seen[0].body == {"display_name": "o", "name": "o"}


# Lists


async def test_a_list_is_read_page_by_page_as_asked(scripted, client):
    """The server's key is echoed unchanged; an empty page is no end; what is not asked for is not fetched."""
    key = {"id": "x", "created_timestamp": 7}
    route = "POST /registry/registry/agent/organisation/list"
    item = {"item_subtype": "ORGANISATION", "display_name": "o", "name": "o"}
    scripted.on(
        route,
        {"status": GOOD, "items": [item | {"id": "1"}, item | {"id": "2"}], "pagination_key": key},
        {"status": GOOD, "items": [], "pagination_key": key | {"id": "y"}},
        {"status": BAD, "items": [item | {"id": "3"}], "pagination_key": None},
    )
    found = []

    async for organisation in client.registry.list(Organisation, page_size=2):
        if organisation.id == "2":
            assert len(scripted.sent(route)) == 1
        found.append(organisation.id)

    assert found == ["1", "2", "3"]
    assert [seen.body.get("pagination_key") for seen in scripted.sent(route)] == [None, key, key | {"id": "y"}]
    assert scripted.sent(route)[0].body["sort_by"] == {"sort_type": "CREATED_TIME", "ascending": False}


async def test_datasets_are_found_by_where_they_lie(scripted, client):
    """The server filters external datasets by the beginning of their URI."""
    scripted.on("POST /registry/registry/entity/dataset/list", {"status": GOOD, "items": [], "pagination_key": None})

    found = client.registry.list(DatasetInfo, sort="ACCESS_INFO_URI_BEGINS_WITH", begins_with="urn:ivcap:artifact:a")

    assert [item async for item in found] == []
    assert scripted.seen[0].body["sort_by"]["begins_with"] == "urn:ivcap:artifact:a"


async def test_jobs_are_listed_over_pages(scripted, client):
    """The job API has no status object, and its key is echoed."""
    job = {"status": "SUCCEEDED", "payload": {}}
    scripted.on(
        "POST /jobs/jobs/user/list_batch",
        {"jobs": [job | {"session_id": "1"}], "pagination_key": {"k": 1}},
        {"jobs": [job | {"session_id": "2"}], "pagination_key": None},
    )

    assert [row.session_id async for row in client.jobs.list_batch("B", page_size=1)] == ["1", "2"]
    assert [seen.body for seen in scripted.seen] == [
        {"batch_id": "B", "limit": 1},
        {"batch_id": "B", "limit": 1, "pagination_key": {"k": 1}},
    ]


# Jobs


async def test_a_job_that_is_not_there_yet_is_none(scripted, client):
    """400 on this route means no row; 401 is another user's job."""
    scripted.on(
        "GET /jobs/jobs/user/fetch",
        scripted.refusal("Item was not found.", 400),
        scripted.refusal("not yours", 401),
    )

    assert await client.jobs.fetch("S") is None
    with pytest.raises(NotAuthorizedError):
        await client.jobs.fetch("S")


async def test_waiting_outlasts_absence_and_looks_again_at_the_end(scripted, client):
    """The row appears late; its end is read twice, and the later reading counts."""
    scripted.on(
        "GET /jobs/jobs/user/fetch",
        scripted.refusal("Item was not found.", 400),
        row("PENDING"),
        row("SUCCEEDED"),
        row("SUCCEEDED", result={"record": {"id": "R"}}),
    )

    done = await client.jobs.wait("S", 10)

    assert done.lodged is not None
    assert done.lodged.id == "R"
    assert len(scripted.seen) == 4


async def test_an_end_is_not_undone_by_a_late_writer(scripted, client):
    """A PENDING written over SUCCEEDED does not send the waiter back."""
    scripted.on("GET /jobs/jobs/user/fetch", row("SUCCEEDED", result={"record": {"id": "R"}}), row("PENDING"))

    assert (await client.jobs.wait("S", 10)).succeeded


async def test_a_failed_job_is_returned_not_raised(scripted, client):
    """What a failure means is the caller's to say, by `checked`."""
    scripted.on("GET /jobs/jobs/user/fetch", row("FAILED", info="why"))

    assert (await client.jobs.wait("S", 10)).info == "why"


async def test_waiting_ends_at_the_deadline(scripted, client):
    """The interval grows, the deadline holds, and the error says what is pending and how it was last seen."""
    scripted.on("GET /jobs/jobs/user/fetch", scripted.refusal("Item was not found.", 400), row("IN_PROGRESS"))
    began = time.monotonic()

    with pytest.raises(WaitTimeoutError) as caught:
        await client.jobs.wait("S", 1.2)

    assert 1.0 < time.monotonic() - began < 3
    assert (caught.value.pending, caught.value.status) == (["S"], "IN_PROGRESS")
    assert 3 <= len(scripted.seen) <= 6


async def test_an_unavailable_platform_is_waited_for_until_the_deadline(scripted, client, caplog):
    """Said once, and a request's own retries end with the deadline."""
    scripted.on("GET /jobs/jobs/user/fetch", PlainTextResponse("Internal Server Error", 500))
    began = time.monotonic()

    with pytest.raises(WaitTimeoutError) as caught:
        await client.jobs.wait("S", 0.5)

    assert time.monotonic() - began < 4
    assert caught.value.status is None
    assert len([r for r in caplog.records if "is waited for" in r.getMessage()]) == 1
