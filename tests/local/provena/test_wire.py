"""What clients depend on: forms of errors, late rows, pages, and requests that take effect as a whole or not at all."""

import time

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from served_home import collection


def fetched(ada, kind, item):
    return ada.ask("registry", "GET", f"/registry/{kind}/fetch", params={"id": item})


def test_every_fault_of_a_body_is_told_at_once(ada, record):
    """All faults of a body are listed with their places, in the form of pydantic 1. A body of a wrong type is a 422.

    The rule about both times applies if these are valid, even if another field is not.
    """

    def faults(body):
        reply = ada.ask("prov", "POST", "/model_run/register", json=body)
        assert reply.status_code == 422
        return {(".".join(map(str, fault["loc"])), fault["type"]) for fault in reply.json()["detail"]}

    empty = ("body.display_name", "value_error")
    assert faults(record | {"start_time": "soon", "display_name": "", "inputs": [{"dataset_type": "FILE"}]}) == {
        ("body.start_time", "type_error.integer"),
        empty,
        ("body.inputs.0.dataset_template_id", "value_error.missing"),
        ("body.inputs.0.dataset_id", "value_error.missing"),
        ("body.inputs.0.dataset_type", "type_error.enum"),
    }
    swapped = faults(record | {"start_time": 5, "end_time": 4, "display_name": ""})
    assert {place for place, _ in swapped} == {"body.display_name", "body.__root__"}
    assert faults(record | {"start_time": "soon", "end_time": 4}) == {("body.start_time", "type_error.integer")}
    for body in ({"a": 1}, [], None, "text", 7):
        assert faults(body)


def test_the_rows_of_jobs_appear_late_but_within_settle(ada, record):
    """At first a new job looks like an unknown one. Its row appears within two seconds. When the job of a batch has
    just succeeded, some of its jobs are not listed yet.
    """
    early, late_rows = set(), []
    for _ in range(5):
        session, sent = ada.register(record), time.monotonic()
        reply = ada.row(session)
        early.add((reply.status_code, reply.json().get("detail")))
        while reply.status_code != 200:
            # Two seconds, and what a busy machine adds.
            assert time.monotonic() - sent < 5
            reply = ada.row(session)
        batch = ada.ask("prov", "POST", "/model_run/register_batch", json={"records": [record] * 8}).json()
        batch = ada.job(batch["session_id"])["result"]["batch_id"]
        wanted = {"batch_id": batch, "limit": 20}
        late_rows.append(len(ada.ask("job", "POST", "/jobs/user/list_batch", json=wanted).json()["jobs"]))
        if (400, "Item was not found.") in early and min(late_rows) < 8:
            break
    assert (400, "Item was not found.") in early and min(late_rows) < 8


def test_pages_give_every_item_once_and_newest_first(ada):
    """Pages of three by key list each item once, in order."""
    made = [ada.organisation(f"page {number}") for number in range(8)]
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
    # What is made meanwhile comes last.
    assert len(items[0]) > 1
    assert [each[: len(items[0])] for each in items] == [items[0]] * 3


def test_a_request_that_fails_half_way_leaves_nothing_behind(local_platform, ada, record):
    """If the job of a study link cannot be made, the change of the registry is undone. If a user without a person mints
    a dataset, the data store returns the registry's reason, and leaves no seed.
    """
    study, run = ada.create("activity/study", title="t", description="d"), ada.lodged(record)
    claims = jwt.decode(ada.token, options={"verify_signature": False})
    key = load_pem_private_key((local_platform.root / "provena-realm.pem").read_bytes(), None)
    nameless = jwt.encode({name: claims[name] for name in claims if name != "email"}, key, "RS256")
    link, query = "/model_run/edit/link_to_study", {"model_run_id": run, "study_id": study}
    reply = ada.ask("prov", "POST", link, token=nameless, params=query)
    assert (reply.status_code, reply.text) == (500, "Internal Server Error")
    assert fetched(ada, "activity/model_run", run).json()["item"]["record"]["study_id"] is None
    assert ada.ask("prov", "POST", link, params=query).status_code == 200
    assert fetched(ada, "activity/model_run", run).json()["item"]["record"]["study_id"] == study
    una, body = local_platform.user("PROVENA_OFFLINE_TOKEN_UNLINKED"), collection(ada.organisation())
    reply = una.ask("data_store", "POST", "/register/mint-dataset", json=body)
    assert reply.status_code == 500 and "400" in reply.json()["detail"]
    seeds = {"filter_by": {"record_type": "SEED_ONLY"}}
    assert ada.ask("registry", "POST", "/registry/entity/dataset/list", json=seeds).json()["seed_items"] == []


def test_a_run_that_changes_its_own_input_does_not_trap_the_graph(ada, record):
    """Lineage with a cycle ends, and has both edges between the run and its dataset."""
    dataset = record["inputs"][0]["dataset_id"]
    run = ada.lodged(record | {"outputs": [record["outputs"][0] | {"dataset_id": dataset}]})
    query = {"starting_id": run, "depth": 10}
    for path in ("upstream", "downstream", "special/contributing_datasets", "special/effected_agents"):
        graph = ada.ask("prov", "GET", f"/explore/{path}", params=query).json()["graph"]
        assert {"type": "wasGeneratedBy", "source": dataset, "target": run} in graph["links"], path


def test_a_url_of_a_file_is_good_for_that_file_alone(ada, record):
    """Without its signature, or for another path, a presigned URL is refused."""
    want = {"dataset_id": record["inputs"][0]["dataset_id"], "file_path": "metadata.json"}
    url = ada.ask("data_store", "POST", "/registry/items/generate-presigned-url", json=want).json()["presigned_url"]
    assert ada.http.get(url).json()["dataset_info"]["name"] == "n"
    assert ada.http.get(url.partition("?")[0]).status_code == 403
    assert ada.http.get(url.replace("metadata.json", "other.json")).status_code == 403
