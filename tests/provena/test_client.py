"""The client against scripted replies: Provena's manners of failing, paging, waiting, tokens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from listings import all_of
from own_login import renewing
from pydantic import SecretStr
from scripted_server import ScriptedServer
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.durable.submission import may_have_taken_effect
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
from ivcap_flows.handles import Artifact
from ivcap_flows.http.auth import Auth
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.login import device_login, token_url
from ivcap_flows.provena.models import (
    Associations,
    Creation,
    DatasetInfo,
    Model,
    ModelRun,
    ModelRunRecord,
    Organisation,
    Person,
    Study,
)
from ivcap_flows.provena.terms import Terms, collection_format
from ivcap_flows.registration.registry import check_caller

RECORD = ModelRunRecord(
    workflow_template_id="W",
    display_name="a run",
    description="of a model",
    associations=Associations(modeller_id="P"),
    start_time=1_700_000_000,
    end_time=1_700_003_600,
)
ORGANISATION = Organisation(display_name="o", name="o")
ITEM = {"id": "O", "item_subtype": "ORGANISATION", "display_name": "o", "name": "o"}
GOOD = {"success": True, "details": "fine"}
BAD = {"success": False, "details": "Could not find\n item. "}
REGISTER, LOOKUP, ROW = "POST /prov/model_run/register", "GET /auth/link/user/lookup", "GET /jobs/jobs/user/fetch"
AGENT = "/registry/registry/agent/organisation"
MINT = "POST /datastore/register/mint-dataset"
TERMS = Terms(organisation_id="O", publisher_id="O", license="https://example.org/l", approvals=Approvals())
COLLECTION = collection_format(Artifact(urn="urn:ivcap:artifact:1", platform="ivcap", name="a"), TERMS)


class ScriptedProvena(ScriptedServer):
    """Its realm gives a token for each grant, which is kept in `grants`."""

    def forget(self) -> None:
        super().forget()
        self.grants: list[dict[str, str]] = []

    @staticmethod
    def refusal(detail: Any, status: int, *, challenge: bool = False) -> Response:
        """An error reply of an API; with `challenge` it concerns the token."""
        return JSONResponse({"detail": detail}, status, {"WWW-Authenticate": "Bearer"} if challenge else None)

    @property
    def endpoints(self) -> Endpoints:
        apis = {name: f"{self.url}/{name}/" for name in ("auth", "registry", "prov", "jobs", "datastore", "search")}
        return Endpoints.of(realm="test", keycloak=f"{self.url}/keycloak", **apis)

    @property
    def auth(self) -> Auth:
        url = token_url(self.endpoints.realm)
        return renewing(url, "automated-access", SecretStr("offline"))

    async def answer(self, request: Request) -> Response:
        if not request.url.path.endswith("/protocol/openid-connect/token"):
            return await super().answer(request)
        form = dict(parse_qsl((await request.body()).decode()))
        self.grants.append(form)
        if "revoked" in (form.get("refresh_token"), form.get("client_secret")):
            return JSONResponse({"error": "invalid_grant", "error_description": "Offline session not active"}, 400)
        claims = {"preferred_username": "ada", "exp": time.time() + 300, "n": len(self.grants)}
        token = jwt.encode(claims, "a-key-of-this-test-and-of-nothing-else", "HS256")
        return JSONResponse({"access_token": token, "expires_in": 300})


@pytest.fixture(scope="session")
def scripted_provena() -> Iterator[ScriptedProvena]:
    server = ScriptedProvena()
    with server.running():
        yield server


@pytest.fixture
def scripted(scripted_provena: ScriptedProvena) -> ScriptedProvena:
    """The scripted Provena, with nothing scripted."""
    scripted_provena.forget()
    return scripted_provena


@pytest.fixture
async def client(scripted: ScriptedProvena) -> AsyncIterator[ProvenaClient]:
    """A client of the scripted Provena, logged in by an offline token."""
    async with ProvenaClient(scripted.endpoints, scripted.auth) as made:
        yield made


def row(status: str, **over: object) -> dict[str, object]:
    return {"job": {"session_id": "S", "status": status, "payload": {}, **over}}


@pytest.mark.parametrize(
    ("noun", "reply", "nothing_made"),
    [
        ("item", {"status": BAD, "created_item": None}, True),
        ("item", {"status": BAD, "created_item": ITEM}, False),
        ("dataset", {"status": BAD, "handle": None, "s3_location": None}, True),
        # The dataset is there, and only the job that records its creation is not.
        ("dataset", {"status": BAD, "handle": "102.100.100/1"}, False),
        ("model run", {"status": BAD, "session_id": None}, False),
    ],
)
async def test_a_refusal_says_whether_anything_was_made(client, scripted, noun, reply, nothing_made):
    """200 without success is definite where the reply names what a create makes, and names nothing. Otherwise the
    effect is looked for."""
    routes = {"item": f"POST {AGENT}/create", "dataset": MINT, "model run": REGISTER}
    scripted.on(routes[noun], reply)
    sends = {
        "item": lambda: client.registry.create(Organisation, ORGANISATION),
        "dataset": lambda: client.datastore.mint(COLLECTION),
        "model run": lambda: client.prov.register(RECORD),
    }
    with pytest.raises(BadRequestError) as refused:
        await sends[noun]()
    assert refused.value.data.get("nothing_made", False) is nothing_made
    assert may_have_taken_effect(refused.value) is not nothing_made


def test_a_domain_gives_all_endpoints():
    """Hosts and realm are those of Provena's deployments; one may be replaced. Without a domain all are needed, and
    the error lists those that are not there."""
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
    with pytest.raises(ConfigurationError) as caught:
        Endpoints.of(realm="r", registry="https://registry.example.org", keycloak="https://auth.example.org")
    assert caught.value.missing == ["auth", "prov", "jobs", "datastore"]
    with pytest.raises(ConfigurationError, match="PROVENA_REALM"):
        Endpoints.of(domain="example.org")


async def test_an_api_whose_url_is_not_known_says_so(client):
    """Deployments that are named API by API may leave out what is seldom used."""
    with pytest.raises(ConfigurationError, match="PROVENA_HANDLE_API"):
        _ = client.ids


async def test_the_platform_is_the_realm_or_an_embedded_one(scripted, client):
    """An embedded platform keeps its id when its port changes, and says how soon its effects show."""
    scripted.on("GET /_embedded", JSONResponse({"detail": "Not Found"}, 404))
    assert await client.platform() == f"{scripted.url}/keycloak/realms/test"
    assert client.visibility_delay == 600
    assert "authorization" not in scripted.to("GET /_embedded")[0].headers
    scripted.on("GET /_embedded", {"instance": "urn:ivcap-flows:embedded:1", "visibility_delay": 2.0})
    async with ProvenaClient(scripted.endpoints, scripted.auth) as embedded:
        assert (await embedded.platform(), embedded.visibility_delay) == ("urn:ivcap-flows:embedded:1", 2.0)


# Tokens


async def test_an_offline_token_gives_access_tokens(scripted, client):
    """One refresh grant serves many requests, and the claims name the user."""
    scripted.on(LOOKUP, {"person_id": "P", "success": True})
    assert [await client.auth_api.linked_person() for _ in range(2)] == ["P", "P"]
    assert await client.username() == "ada"
    assert scripted.grants == [
        {"grant_type": "refresh_token", "client_id": "automated-access", "refresh_token": "offline"}
    ]
    assert len(scripted.to(LOOKUP)) == 2


async def test_a_service_account_logs_in_by_its_secret(scripted):
    """One that is refused says what to correct, and is not shown."""
    names = ("auth", "registry", "prov", "jobs", "datastore")
    addresses = {name: f"{scripted.url}/{name}/" for name in names} | {"keycloak": f"{scripted.url}/keycloak"}
    robot = ProvenaCredentials(realm="test", addresses=addresses, client_id="robot", client_secret="s3cret")
    async with robot.get_client() as client:
        assert await client.username() == "ada"
    assert scripted.grants[0] == {"grant_type": "client_credentials", "client_id": "robot", "client_secret": "s3cret"}
    wrong = robot.model_copy(update={"client_secret": SecretStr("revoked")})
    async with wrong.get_client() as client:
        with pytest.raises(NotAuthorizedError, match="Correct the client id and the client secret") as caught:
            await client.username()
    assert "revoked" not in str(caught.value)


async def test_a_device_logs_in(scripted):
    """At the realm's two endpoints, asking for what an offline token needs."""
    asked, shown = "POST /keycloak/realms/test/protocol/openid-connect/auth/device", []
    begun = {"device_code": "d", "user_code": "ABCD", "verification_uri": "https://v", "interval": 0, "expires_in": 5}
    scripted.on(asked, begun)
    assert (await device_login(scripted.endpoints.realm, "automated-access", show=shown.append).tokens()).access
    assert [v.code for v in shown] == ["ABCD"]
    [call] = scripted.to(asked)
    assert dict(parse_qsl(call.body)) == {"client_id": "automated-access", "scope": "offline_access roles"}


async def test_a_revoked_offline_token_is_said_without_the_token(scripted):
    """The error names the next step and never the token."""
    login = renewing(token_url(scripted.endpoints.realm), "c", SecretStr("revoked"))
    async with ProvenaClient(scripted.endpoints, login) as client:
        with pytest.raises(NotAuthorizedError, match="Offline session not active") as caught:
            await client.username()
    assert "revoked" not in str(caught.value) + repr(client)


# Manners of failing


async def test_a_401_with_a_challenge_is_about_the_token_and_tried_once_more_with_a_fresh_one(scripted, client):
    """It may have been revoked early. If the role is missing, the second reply says so."""
    denied = scripted.refusal("lacks the correct role", 401, challenge=True)
    scripted.on(REGISTER, denied, {"status": GOOD, "session_id": "S"})
    assert await client.prov.register(RECORD) == "S"
    first, second = scripted.to(REGISTER)
    assert first.headers["authorization"] != second.headers["authorization"]
    scripted.on(REGISTER, denied)
    with pytest.raises(NotAuthorizedError, match="PROVENA_OFFLINE_TOKEN") as caught:
        await client.prov.register(RECORD)
    assert caught.value.about == "token" and len(scripted.to(REGISTER)) == 4


async def test_who_has_no_e_mail_address_is_told_before_anything_is_sent(client, scripted):
    """Provena answers 500 to such a write, which would leave a doubt."""
    with pytest.raises(InputError, match=r"user ada has no e-mail address.*scope `email`"):
        await check_caller(client, "ada", person=True)
    assert scripted.calls == []


async def test_a_401_without_a_challenge_concerns_the_item(scripted, client):
    """A closed or locked item is not helped by another token, so nothing is sent again."""
    route = "GET /registry/registry/agent/person/fetch"
    scripted.on(route, scripted.refusal("The item is locked.", 401))
    with pytest.raises(NotAuthorizedError, match="token is good") as caught:
        await client.registry.fetch(Person, "P")
    assert (caught.value.about, caught.value.detail) == ("item", "The item is locked.")
    assert (len(scripted.to(route)), len(scripted.grants)) == (1, 1)


async def test_success_false_is_an_error(scripted, client):
    """Status 200 with `success` false raises with the server's words on one line; of a fetch it means an absence."""
    scripted.on("GET /registry/registry/entity/model/fetch", {"status": BAD, "item": None})
    scripted.on("GET /registry/registry/general/fetch", {"status": BAD, "item": None})
    scripted.on(f"POST {AGENT}/create", {"status": BAD, "created_item": None})
    with pytest.raises(NotFoundError) as absent:
        await client.registry.fetch("MODEL", "nothing")
    with pytest.raises(BadRequestError) as refused:
        await client.registry.create(Organisation, ORGANISATION)
    for caught in (absent, refused):
        assert (caught.value.status, caught.value.detail) == (200, "Could not find item.")
    assert str(absent.value) == "Provena found nothing for GET /registry/general/fetch: Could not find item."
    assert str(refused.value) == "Provena refused POST /registry/agent/organisation/create: Could not find item."


async def test_a_422_names_each_field_and_echoes_no_document(scripted, client):
    """The list becomes one sentence; the caller's text in `ctx.doc` stays out."""
    detail = [
        {"loc": ["body", "inputs", 0, "dataset_type"], "msg": "not permitted", "type": "type_error.enum"},
        {"loc": ["body", 7], "msg": "Expecting value", "type": "value_error.jsondecode", "ctx": {"doc": "SECRET"}},
    ]
    scripted.on(REGISTER, scripted.refusal(detail, 422))
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
    scripted.on(REGISTER, reply)
    with pytest.raises(error, match=words) as caught:
        await client.prov.register(RECORD)
    assert caught.value.data.get("sent", True)
    assert len(scripted.to(REGISTER)) == 1


async def test_a_500_that_is_an_answer_is_not_asked_for_again(scripted, client):
    """Where the API refuses by 500, the session's patience would only cost a minute; a 503 is still waited out."""
    refusal = scripted.refusal("Could not fetch the item.", 500)
    routes = ("/explore/upstream", "/bulk/generate_template/csv")
    for route in routes:
        scripted.on(f"GET /prov{route}", refusal)
    scripted.on("GET /prov/explore/downstream", scripted.refusal("busy", 503), {"graph": {"nodes": [], "links": []}})
    for ask in (client.prov.explore("x", "upstream"), client.prov.csv_template("x")):
        with pytest.raises(UnavailableError, match="Could not fetch the item"):
            await ask
    assert await client.prov.explore("x", "downstream") == Lineage()
    assert [len(scripted.to(f"GET /prov{route}")) for route in (*routes, "/explore/downstream")] == [1, 1, 2]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.prov.register(RECORD.model_copy(update={"display_name": ""})),
        lambda client: client.prov.explore("x", "upstream", depth=0),
        lambda client: client.prov.explore("x", "upstream", depth=11),
        lambda client: client.prov.report("x", ModelRun, depth=4),
        lambda client: client.registry.create("CREATE", Creation(display_name="c", created_item_id="x")),
        lambda client: client.registry.create("PERSON", ORGANISATION),
        lambda client: client.registry.fetch("SOFTWARE", "x"),
        lambda client: client.registry.version(Study, "x", reason="r"),
        lambda client: client.search.registry("x", limit=51),
    ],
)
async def test_nothing_is_sent_that_the_server_would_refuse(scripted, client, ask):
    """Faults are found before the first byte."""
    with pytest.raises(InputError):
        await ask(client)
    assert scripted.calls == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.registry.fetch(Model, ""),
        lambda client: client.registry.fetch_any(" "),
        lambda client: client.registry.locks.lock(Model, "", reason="r"),
        lambda client: client.registry.version(Model, "", reason="r"),
        lambda client: client.datastore.fetch_dataset(""),
        lambda client: client.datastore.read_credentials(""),
        lambda client: client.jobs.fetch(""),
        lambda client: client.prov.explore("", "upstream"),
        lambda client: client.prov.link_to_study("102.100.100/1", ""),
        lambda client: client.registry.create(Study, Study(display_name="", title="t", description="d")),
        lambda client: client.registry.update(Study, "1", Study(display_name=" ", title="t", description="d")),
    ],
)
async def test_what_provena_crashes_at_is_not_sent(scripted, client, ask):
    """An empty id or name is the caller's fault: a 500 would look like a server that is down."""
    with pytest.raises(InputError, match="empty"):
        await ask(client)
    assert scripted.calls == []


async def test_an_update_keeps_what_a_newer_server_added(scripted, client):
    """A field that only the platform knows goes back to it, since an update replaces all; a create refuses it."""
    scripted.on(f"GET {AGENT}/fetch", {"status": GOOD, "item": ITEM | {"planet": "Earth"}})
    scripted.on(f"PUT {AGENT}/update", {"status": GOOD})
    read = await client.registry.fetch(Organisation, "O")
    await client.registry.update(Organisation, "O", read.info, reason="r")
    with pytest.raises(InputError, match="planet"):
        await client.registry.create(Organisation, read.info)
    [sent] = scripted.to(f"PUT {AGENT}/update")
    assert sent.body == {"display_name": "o", "name": "o", "planet": "Earth"}
    assert sent.query == {"id": "O", "reason": "r"}


async def test_a_create_gives_the_item_and_its_session(scripted, client):
    """The session may be absent. Only names and ids may not be empty."""
    created = {"created_item": ITEM, "register_create_activity_session_id": None}
    scripted.on(f"POST {AGENT}/create", {"status": GOOD, **created})
    made = await client.registry.create("ORGANISATION", ORGANISATION)
    assert (made.item.id, made.session_id) == ("O", None)
    assert scripted.calls[-1].body == {"display_name": "o", "name": "o"}
    study, route = Study(display_name="s", title="t", description="d", study_alternative_id=""), "activity/study"
    item = {"id": "S", "item_subtype": "STUDY", "display_name": "s", "title": "t", "description": "d"}
    scripted.on(f"POST /registry/registry/{route}/create", {"created_item": item})
    await client.registry.create(Study, study)
    assert scripted.calls[-1].body["study_alternative_id"] == ""


# Lists


async def test_a_list_is_read_page_by_page_as_asked(scripted, client):
    """The server's key is echoed unchanged; an empty page is no end; what is not asked for is not fetched; a key that
    comes back would never end."""
    key, route = {"id": "x", "created_timestamp": 7}, f"POST {AGENT}/list"

    def page(*ids, key, status=GOOD):
        return {"status": status, "items": [ITEM | {"id": one} for one in ids], "pagination_key": key}

    scripted.on(route, page("1", "2", key=key), page(key=key | {"id": "y"}), page("3", key=None, status=BAD))
    found = []
    async for organisation in client.registry.list(Organisation, page_size=2):
        if organisation.id == "2":
            assert len(scripted.to(route)) == 1
        found.append(organisation.id)
    assert found == ["1", "2", "3"]
    assert [call.body.get("pagination_key") for call in scripted.to(route)] == [None, key, key | {"id": "y"}]
    assert scripted.to(route)[0].body["sort_by"] == {"sort_type": "CREATED_TIME", "ascending": False}

    scripted.on(route, page("1", "2", key=key))
    assert await all_of(client.registry.list(Organisation, limit=0)) == []
    assert len(await all_of(client.registry.list(Organisation, limit=2))) == 2
    assert len(scripted.to(route)) == 4
    with pytest.raises(ProtocolError, match="read before"):
        await all_of(client.registry.list(Organisation))
    assert len(scripted.to(route)) == 6
    one, other = page("1", key=key), page("2", key=key | {"id": "y"})
    scripted.on(route, one, other, one, other, page(key=None))
    with pytest.raises(ProtocolError, match="read before"):
        await all_of(client.registry.list(Organisation))
    assert len(scripted.to(route)) == 9


async def test_datasets_and_jobs_are_listed(scripted, client):
    """External datasets by the beginning of their URI. The job API has no status object, and its key is echoed."""
    scripted.on("POST /registry/registry/entity/dataset/list", {"status": GOOD, "items": [], "pagination_key": None})
    listing = client.registry.list(DatasetInfo, sort="ACCESS_INFO_URI_BEGINS_WITH", begins_with="urn:ivcap:artifact:a")
    assert await all_of(listing) == []
    assert scripted.calls.pop().body["sort_by"]["begins_with"] == "urn:ivcap:artifact:a"
    job = {"status": "SUCCEEDED", "payload": {}}
    scripted.on(
        "POST /jobs/jobs/user/list",
        {"jobs": [job | {"session_id": "1"}], "pagination_key": {"k": 1}},
        {"jobs": [job | {"session_id": "2"}], "pagination_key": None},
    )
    assert [each.session_id async for each in client.jobs.list(page_size=1)] == ["1", "2"]
    assert [call.body for call in scripted.calls] == [
        {"limit": 1},
        {"limit": 1, "pagination_key": {"k": 1}},
    ]


# Jobs


async def test_a_job_that_is_not_there_yet_is_none(scripted, client):
    """400 on this route means no row; 401 is another user's job."""
    scripted.on(ROW, scripted.refusal("Item was not found.", 400), scripted.refusal("not yours", 401))
    assert await client.jobs.fetch("S") is None
    with pytest.raises(NotAuthorizedError) as caught:
        await client.jobs.fetch("S")
    assert caught.value.about == "item"


async def test_waiting_outlasts_absence(scripted, client):
    """The row appears late. What a failure means is the caller's to say, by `checked`."""
    absent = scripted.refusal("Item was not found.", 400)
    lodged = row("SUCCEEDED", result={"record": {"id": "R"}})
    scripted.on(ROW, absent, row("PENDING"), lodged)
    assert (await client.jobs.wait("S", 10)).lodged.id == "R"
    assert len(scripted.calls) == 3
    scripted.on(ROW, row("FAILED", info="why"))
    assert (await client.jobs.wait("S", 10)).info == "why"


async def test_waiting_ends_at_the_deadline(scripted, client):
    """The interval grows, the deadline holds, and the error says what is pending and how it was last seen."""
    scripted.on(ROW, scripted.refusal("Item was not found.", 400), row("IN_PROGRESS"))
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError) as caught:
        await client.jobs.wait("S", 2.0)
    assert 1.8 < time.monotonic() - began < 20
    assert (caught.value.pending, caught.value.status) == (["S"], "IN_PROGRESS")
    assert 3 <= len(scripted.calls) <= 6


async def test_an_unavailable_platform_is_waited_for_until_the_deadline(scripted, client, caplog):
    """Said once, and a request's own retries end with the deadline."""
    scripted.on(ROW, PlainTextResponse("Internal Server Error", 500))
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError) as caught:
        await client.jobs.wait("S", 0.5)
    assert time.monotonic() - began < 30
    assert caught.value.status is None
    assert len([r for r in caplog.records if "is waited for" in r.getMessage()]) == 1
