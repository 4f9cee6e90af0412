"""What clients depend on: forms of errors, late rows, pages, and requests that take effect as a whole or not at all."""

from __future__ import annotations

import asyncio
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from starlette.applications import Starlette
from starlette.routing import Mount

from ivcap_flows.local.clock import LATE
from ivcap_flows.local.provena import create_app, environment


def fetched(ada, kind, item):
    return ada.ask("registry", "GET", f"/registry/{kind}/fetch", params={"id": item})


def test_an_unknown_id_fails_in_two_manners(ada):
    """A fetch of an unknown id is a 200 without success, an update a 400 with a detail."""
    body = fetched(ada, "activity/study", "no-such-id")
    assert (body.status_code, body.json()["status"]["success"], body.json()["item"]) == (200, False, None)
    info = {"display_name": "n", "title": "t", "description": "d"}
    reply = ada.ask("registry", "PUT", "/registry/activity/study/update", params={"id": "x", "reason": "r"}, json=info)
    assert reply.status_code == 400
    assert isinstance(reply.json()["detail"], str)


def test_every_fault_of_a_body_is_told_at_once(ada, record):
    """All faults of a body are listed with their places, in the form of pydantic 1."""
    bad = record | {"start_time": "soon", "display_name": "", "inputs": [{"dataset_type": "FILE"}]}
    reply = ada.ask("prov", "POST", "/model_run/register", json=bad)
    assert reply.status_code == 422
    assert {(".".join(map(str, fault["loc"])), fault["type"]) for fault in reply.json()["detail"]} == {
        ("body.start_time", "type_error.integer"),
        ("body.display_name", "value_error"),
        ("body.inputs.0.dataset_template_id", "value_error.missing"),
        ("body.inputs.0.dataset_id", "value_error.missing"),
        ("body.inputs.0.dataset_type", "type_error.enum"),
    }


def test_an_item_denial_differs_from_a_token_failure(provena, ada, record):
    """Only a token failure has the header WWW-Authenticate."""
    session = ada.ask("prov", "POST", "/model_run/register", json=record).json()["session_id"]
    ada.job(session)
    ben = provena.user("PROVENA_OFFLINE_TOKEN_2")
    reply = ben.ask("job", "GET", "/jobs/user/fetch", params={"session_id": session})
    assert reply.status_code == 401
    assert "www-authenticate" not in reply.headers


def test_the_row_of_a_job_appears_late_but_within_settle(ada, record):
    """At first a new job looks like an unknown one. Its row appears within two seconds."""
    seen = []
    for _ in range(5):
        session = ada.ask("prov", "POST", "/model_run/register", json=record).json()["session_id"]
        sent = time.monotonic()
        reply = ada.ask("job", "GET", "/jobs/user/fetch", params={"session_id": session})
        seen.append((reply.status_code, reply.json().get("detail")))
        while reply.status_code != 200:
            assert time.monotonic() - sent < 2
            reply = ada.ask("job", "GET", "/jobs/user/fetch", params={"session_id": session})
        if seen[-1][0] == 400:
            break
    assert (400, "Item was not found.") in seen


def test_the_rows_of_a_batch_appear_after_the_batch_succeeded(ada, record):
    """When the batch's job has just succeeded, some of its jobs are not listed yet."""
    for _ in range(5):
        reply = ada.ask("prov", "POST", "/model_run/register_batch", json={"records": [record] * 8})
        batch = ada.job(reply.json()["session_id"])["result"]["batch_id"]
        early = ada.ask("job", "POST", "/jobs/user/list_batch", json={"batch_id": batch, "limit": 20}).json()["jobs"]
        if len(early) < 8:
            return
    raise AssertionError("all children were there at once, five times")


def test_pages_give_every_item_once_and_newest_first(ada):
    """Pages of three by key list each item once, in order."""
    made = [ada.create("agent/organisation", name=f"page {number}") for number in range(8)]
    seen, key = [], None
    while True:
        body = {"page_size": 3, "pagination_key": key}
        page = ada.ask("registry", "POST", "/registry/agent/organisation/list", json=body).json()
        seen += page["items"]
        key = page["pagination_key"]
        if key is None:
            break
    assert len({item["id"] for item in seen}) == len(seen)
    assert [item["id"] for item in seen if item["id"] in made] == made[::-1]


def test_a_direction_alone_sorts_by_the_last_change(ada):
    """`sort_by` may lack its type, as in the official client's count of items."""
    path, wanted = "/registry/general/list", {"page_size": 50}
    pages = [
        ada.ask("registry", "POST", path, json=wanted | {"sort_by": {"ascending": True} | more})
        for more in ({}, {"sort_type": None}, {"sort_type": "UPDATED_TIME"})
    ]
    assert [page.status_code for page in pages] == [200] * 3
    items = [[item["id"] for item in page.json()["items"]] for page in pages]
    assert len(items[0]) > 1
    assert items[0] == items[1] == items[2]


def test_a_request_that_fails_half_way_leaves_nothing_behind(provena, ada, record):
    """If the job of a study link cannot be made, the change of the registry is undone."""
    study = ada.create("activity/study", title="t", description="d")
    session = ada.ask("prov", "POST", "/model_run/register", json=record).json()["session_id"]
    run = ada.job(session)["result"]["record"]["id"]
    claims = jwt.decode(ada.token, options={"verify_signature": False})
    key = load_pem_private_key((provena.directory / "provena-realm.pem").read_bytes(), None)
    nameless = jwt.encode({name: claims[name] for name in claims if name != "email"}, key, "RS256")
    query = {"model_run_id": run, "study_id": study}
    link = ada.env["PROVENA_PROV_API"] + "/model_run/edit/link_to_study"
    reply = ada.http.post(link, headers={"Authorization": f"Bearer {nameless}"}, params=query)
    assert (reply.status_code, reply.text) == (500, "Internal Server Error")
    assert fetched(ada, "activity/model_run", run).json()["item"]["record"]["study_id"] is None
    assert ada.ask("prov", "POST", "/model_run/edit/link_to_study", params=query).status_code == 200
    assert fetched(ada, "activity/model_run", run).json()["item"]["record"]["study_id"] == study


def test_a_mint_without_a_person_is_a_500_that_tells_why(provena, ada, a_collection):
    """The data store returns the registry's reason, and leaves no seed."""
    una = provena.user("PROVENA_OFFLINE_TOKEN_UNLINKED")
    organisation = ada.create("agent/organisation", name="o")
    reply = una.ask("data_store", "POST", "/register/mint-dataset", json=a_collection(organisation))
    assert reply.status_code == 500
    assert "400" in reply.json()["detail"]
    body = {"filter_by": {"record_type": "SEED_ONLY"}}
    assert ada.ask("registry", "POST", "/registry/entity/dataset/list", json=body).json()["seed_items"] == []


def test_a_run_that_changes_its_own_input_does_not_trap_the_graph(ada, record):
    """Lineage with a cycle ends, and has both edges between the run and its dataset."""
    dataset = record["inputs"][0]["dataset_id"]
    circle = record | {"outputs": [record["outputs"][0] | {"dataset_id": dataset}]}
    session = ada.ask("prov", "POST", "/model_run/register", json=circle).json()["session_id"]
    run = ada.job(session)["result"]["record"]["id"]
    query = {"starting_id": run, "depth": 10}
    for path in ("upstream", "downstream", "special/contributing_datasets", "special/effected_agents"):
        graph = ada.ask("prov", "GET", f"/explore/{path}", params=query).json()["graph"]
        assert {"type": "wasGeneratedBy", "source": dataset, "target": run} in graph["links"], path


@pytest.mark.parametrize("body", [{"a": 1}, [], None, "text", 7])
def test_any_json_is_answered(ada, body):
    """A body of a wrong type is a 422, and never a crash."""
    reply = ada.ask("prov", "POST", "/model_run/register", json=body)
    assert reply.status_code == 422


def test_the_links_that_are_given_out_work(ada, record):
    """The presigned URL of a dataset's metadata and the URL of a report can be read."""
    want = {"dataset_id": record["inputs"][0]["dataset_id"], "file_path": "metadata.json"}
    url = ada.ask("data_store", "POST", "/registry/items/generate-presigned-url", json=want).json()["presigned_url"]
    assert ada.http.get(url).json()["dataset_info"]["name"] == "n"
    assert ada.http.get(url.partition("?")[0]).status_code == 403
    assert ada.http.get(url.replace("metadata.json", "other.json")).status_code == 403
    run = ada.job(ada.ask("prov", "POST", "/model_run/register", json=record).json()["session_id"])
    wanted = {"id": run["result"]["record"]["id"], "item_subtype": "MODEL_RUN", "depth": 1}
    session = ada.ask("prov", "POST", "/explore/generate/report", json=wanted).json()["session_id"]
    assert ada.http.get(ada.job(session)["result"]["report_url"]).content[:2] == b"PK"


async def test_a_fault_hides_what_a_request_makes(tmp_path):
    """With late visibility, a new item and job are in no read and no list until their time has come."""
    embedded = create_app(tmp_path, "http://embedded")
    await embedded.start()
    try:
        env = environment(tmp_path, "http://embedded")
        mounted = Starlette(routes=[Mount("/provena", embedded.app)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(mounted), base_url="http://embedded") as http:
            form = {"grant_type": "refresh_token", "client_id": env["PROVENA_CLIENT_ID"]}
            form["refresh_token"] = env["PROVENA_OFFLINE_TOKEN"]
            realm = f"{env['PROVENA_KEYCLOAK']}/realms/{env['PROVENA_REALM']}"
            token = (await http.post(f"{realm}/protocol/openid-connect/token", data=form)).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            prefix = env["PROVENA_REGISTRY_API"] + "/registry/entity/dataset_template"
            late = LATE.set(0.5)
            made = (await http.post(f"{prefix}/create", json={"display_name": "hidden"})).json()
            LATE.reset(late)
            item, session = made["created_item"]["id"], made["register_create_activity_session_id"]

            async def seen() -> tuple[bool, bool, bool]:
                fetched = (await http.get(f"{prefix}/fetch", params={"id": item})).json()["item"] is not None
                listed = (await http.post(f"{prefix}/list", json={})).json()["items"] != []
                jobs = env["PROVENA_JOB_API"] + "/jobs/user/fetch"
                return fetched, listed, (await http.get(jobs, params={"session_id": session})).status_code == 200

            assert await seen() == (False, False, False)
            await asyncio.sleep(0.8)
            assert await seen() == (True, True, True)
    finally:
        await embedded.stop()
