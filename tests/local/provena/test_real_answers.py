"""Replies of the real server that a client would not guess: the order of checks, what counts as empty, unusual
refusals."""

import csv
import io

import pytest
from served_home import collection

URL = "https://example.org/"
PREFIXES = {
    "study": "/registry/activity/study",
    "organisation": "/registry/agent/organisation",
    "workflow": "/registry/entity/model_run_workflow",
    "template": "/registry/entity/dataset_template",
    "dataset": "/registry/entity/dataset",
}


def answer(reply):
    """Return the status, and whether the body says that the request succeeded (None if it does not say)."""
    body = reply.json()
    said = body.get("status") if isinstance(body, dict) else None
    return reply.status_code, said["success"] if isinstance(said, dict) else None


@pytest.fixture(scope="module")
def reviewer(ada, admin):
    """The person of the first user, who may approve releases while the tests of this file run."""
    person = ada.person()
    query = {"reviewer_id": person}
    admin.ask("data_store", "POST", "/release/sys-reviewers/add", params=query).raise_for_status()
    yield person
    admin.ask("data_store", "DELETE", "/release/sys-reviewers/delete", params=query).raise_for_status()


def test_answers_about_the_user_have_their_own_forms(ada):
    """The general access check returns the user, unlike the public one of the same API. A history has no status."""
    body = ada.ask("auth", "GET", "/check-access/general").json()
    assert body.keys() == {"username", "email", "roles", "access_token"}
    assert body["username"] == "embedded-user" and "entity-registry-write" in body["roles"]
    for name in ("request-history", "pending-request-history"):
        assert ada.ask("auth", "GET", f"/access-control/user/{name}").json().keys() == {"items"}


def test_who_is_no_reviewer_is_told_so_before_anything_is_looked_at(ada, ben, admin, record, reviewer):
    """A user who is no reviewer gets 401, even for a dataset that waits for nothing or does not exist.

    Removing a reviewer a second time changes nothing.
    """
    path, decision = "/release/action-approval-request", {"approve": True, "notes": "n"}
    own = {"dataset_id": record["inputs"][0]["dataset_id"]}
    for dataset in (own, {"dataset_id": "no-such-dataset"}):
        reply = ben.ask("data_store", "PUT", path, json=dataset | decision)
        assert reply.status_code == 401 and "www-authenticate" not in reply.headers
    assert ada.ask("data_store", "PUT", path, json=own | decision).status_code == 400
    for _ in range(2):
        reply = admin.ask("data_store", "DELETE", "/release/sys-reviewers/delete", params={"reviewer_id": "nobody"})
        assert reply.status_code == 200


def test_a_filter_goes_with_the_sorts_that_have_an_index(ada, reviewer):
    """A filter is refused with a sort that has no index for it.

    The subtype decides before the reviewer, and a release status needs no index.
    """
    by_reviewer, datasets = {"release_reviewer": reviewer}, {"item_subtype": "DATASET"}
    for chosen, sort, status in (
        (by_reviewer, "RELEASE_TIMESTAMP", 200),
        (by_reviewer, "CREATED_TIME", 400),
        (by_reviewer, "UPDATED_TIME", 400),
        (by_reviewer, "DISPLAY_NAME", 400),
        (by_reviewer | datasets, "CREATED_TIME", 200),
        (by_reviewer | datasets, "RELEASE_TIMESTAMP", 400),
        (datasets, "RELEASE_TIMESTAMP", 400),
        ({}, "RELEASE_TIMESTAMP", 400),
        ({"release_status": "PENDING"}, "CREATED_TIME", 200),
    ):
        body = {"filter_by": chosen, "sort_by": {"sort_type": sort}}
        reply = ada.ask("registry", "POST", "/registry/general/list", json=body)
        assert reply.status_code == status, (chosen, sort)
        assert status == 200 or "Could not derive an index" in reply.json()["detail"]
    # The index of the default sort has a name, and the table lacks it.
    assert ada.ask("registry", "POST", "/registry/general/list", json={"filter_by": by_reviewer}).status_code == 500


def test_a_release_status_is_a_filter_of_the_page(ada):
    """The release status filters within a page, so a page may be empty and still name the next one."""
    organisation = ada.organisation()
    ada.mint(organisation)
    ada.create("agent/organisation", name="newer than the dataset")
    wanted = {"filter_by": {"release_status": "NOT_RELEASED"}, "sort_by": {"sort_type": "CREATED_TIME"}, "page_size": 1}
    page = ada.ask("registry", "POST", "/registry/general/list", json=wanted).json()
    assert page["items"] == [] and page["pagination_key"] is not None


@pytest.mark.parametrize("nothing", [[], ""])
def test_an_empty_list_or_text_is_an_empty_object(ada, nothing):
    """An empty list or text counts as an empty object, since pydantic 1 calls `dict()` on it."""
    list_path = "/registry/general/list"
    assert ada.ask("registry", "POST", list_path, json=nothing).status_code == 200
    assert ada.ask("registry", "POST", list_path, json={"filter_by": nothing, "sort_by": nothing}).status_code == 200
    study = {"display_name": "d", "title": "t", "description": "d", "user_metadata": nothing}
    assert answer(ada.ask("registry", "POST", f"{PREFIXES['study']}/validate", json=study)) == (200, True)
    body = {"batch_id": "no-such-batch", "pagination_key": nothing}
    reply = ada.ask("job", "POST", "/jobs/user/list_batch", json=body)
    assert (reply.status_code, reply.json()["jobs"]) == (200, [])
    assert ada.ask("registry", "POST", list_path, json={"filter_by": [1]}).status_code == 422


def test_an_empty_key_and_an_unknown_batch_give_no_jobs(ada, record):
    """An empty key gives no jobs if there are no rows. If there are rows, it is malformed."""
    body = {"batch_id": "no-such-batch", "pagination_key": {}}
    assert ada.ask("job", "POST", "/jobs/user/list_batch", json=body).json() == {"jobs": [], "pagination_key": None}
    ada.register(record)
    assert ada.ask("job", "POST", "/jobs/user/list", json={"pagination_key": {}}).status_code == 500


EMPTY_IDS = [
    ("registry", "GET", "/registry/general/fetch", {"params": {"id": ""}}),
    ("registry", "GET", "/registry/activity/study/fetch", {"params": {"id": ""}}),
    ("registry", "GET", "/registry/activity/study/locks/locked", {"params": {"id": ""}}),
    ("registry", "GET", "/registry/activity/study/auth/evaluate", {"params": {"id": ""}}),
    ("registry", "PUT", "/registry/activity/study/locks/lock", {"json": {"id": "", "reason": "r"}}),
    ("registry", "POST", "/registry/entity/model/version", {"json": {"id": "", "reason": "r"}}),
    ("data_store", "GET", "/registry/items/fetch-dataset", {"params": {"handle_id": ""}}),
    ("prov", "GET", "/explore/upstream", {"params": {"starting_id": ""}}),
    ("job", "GET", "/jobs/user/fetch", {"params": {"session_id": ""}}),
]


def test_an_empty_id_is_refused(ada):
    """The real server crashes (500) on an empty id, a key of its database. This one gives the reason."""
    for api, method, path, more in EMPTY_IDS:
        reply = ada.ask(api, method, path, **more)
        assert reply.status_code == 400 and "empty" in reply.json()["detail"], path


def test_an_empty_display_name_is_refused(ada):
    """The real server crashes (500) on an empty name, a key of an index. This one gives the reason."""
    study = {"display_name": "", "title": "t", "description": "d"}
    assert answer(ada.ask("registry", "POST", f"{PREFIXES['study']}/validate", json=study)) == (200, True)
    made = ada.ask("registry", "POST", f"{PREFIXES['study']}/create", json=study)
    assert made.status_code == 400 and "display_name" in made.json()["detail"]
    item = ada.create("activity/study", title="t", description="d")
    query = {"id": item, "reason": "r"}
    assert ada.ask("registry", "PUT", f"{PREFIXES['study']}/update", params=query, json=study).status_code == 400


def test_the_address_of_an_external_dataset_is_any_text(ada, record):
    """The address of an external dataset need not be a URL."""
    dataset = record["inputs"][0]["dataset_id"]
    item = ada.ask("registry", "GET", f"{PREFIXES['dataset']}/fetch", params={"id": dataset}).json()["item"]
    info = {name: item[name] for name in ("display_name", "collection_format", "s3", "release_status")}
    reply = ada.ask("registry", "POST", f"{PREFIXES['dataset']}/validate", json=info | {"access_info_uri": "no url"})
    assert answer(reply) == (200, True)


def test_what_is_no_such_item_cannot_be_reverted(ada):
    """The subtype is checked before the seed. The data store reverts only datasets."""
    seed = ada.ask("registry", "POST", f"{PREFIXES['template']}/seed").json()["seeded_item"]["id"]
    wanted = {"id": seed, "history_id": 0, "reason": "r"}
    assert answer(ada.ask("registry", "PUT", f"{PREFIXES['study']}/revert", json=wanted)) == (200, False)
    assert ada.ask("registry", "PUT", f"{PREFIXES['template']}/revert", json=wanted).status_code == 400
    for item in (seed, ada.create("activity/study", title="t", description="d")):
        wanted = {"id": item, "history_id": 0, "reason": "r"}
        assert ada.ask("data_store", "PUT", "/register/revert-metadata", json=wanted).status_code == 400


def test_statements_are_looked_at_before_the_item_that_they_replace(ada):
    """An invalid update is refused as such, even for an unknown id."""
    info = {"display_name": "w", "software_id": "no-such-model"}
    query = {"id": "no-such-item", "reason": "r"}
    reply = ada.ask("registry", "PUT", f"{PREFIXES['workflow']}/update", params=query, json=info)
    assert answer(reply) == (200, False)
    info = {"display_name": "n", "name": "n"}
    reply = ada.ask("registry", "PUT", f"{PREFIXES['organisation']}/update", params=query, json=info)
    assert reply.status_code == 400


def test_a_report_of_what_has_none_fails_with_its_reason(ada):
    """The job's error names the subtype, and those that have reports."""
    item = ada.organisation()
    wanted = {"id": item, "item_subtype": "ORGANISATION", "depth": 1}
    job = ada.job(ada.ask("prov", "POST", "/explore/generate/report", json=wanted).json()["session_id"])
    assert job["status"] == "FAILED"
    assert "ORGANISATION" in job["info"] and "MODEL_RUN" in job["info"] and "STUDY" in job["info"]


def test_an_update_of_a_locked_run_fails_without_a_reason(ada, record):
    """The update is accepted, and its job fails with almost no message."""
    run = ada.lodged(record)
    lock = "/registry/activity/model_run/locks/lock"
    ada.ask("registry", "PUT", lock, json={"id": run, "reason": "r"}).raise_for_status()
    change = {"model_run_id": run, "reason": "r", "record": record | {"description": "other"}}
    job = ada.job(ada.ask("prov", "POST", "/model_run/update", json=change).json()["session_id"])
    assert job["status"] == "FAILED" and job["info"].endswith("Error: ..")


@pytest.fixture(scope="module")
def sheet(ada, record):
    """Convert a sheet with these changes to its one row. `raw` changes the text of the file."""
    query = {"workflow_template_id": record["workflow_template_id"]}
    header = next(csv.reader([ada.ask("prov", "GET", "/bulk/generate_template/csv", params=query).text]))
    fields = {
        "display name": "run",
        "description": "d",
        "agent id": record["associations"]["modeller_id"],
        "execution start time (YYYY-MM-DD HH:MM:SS+HH:MM)": "2024-01-01 00:00:00+00:00",
        "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)": "2024-01-01 01:00:00+00:00",
    }
    for name in header:
        if name.startswith("Input dataset"):
            fields[name] = record["inputs"][0]["dataset_id"]
        if name.startswith("Output dataset"):
            fields[name] = record["outputs"][0]["dataset_id"]

    def convert(*, raw=lambda text: text, more=(), less=0, **changes):
        named = {next(name for name in header if name.startswith(key.replace("_", " "))): text
                 for key, text in changes.items() if key != "job"}  # fmt: skip
        named |= {"_job_id": changes["job"]} if "job" in changes else {}
        row = [(fields | named).get(name, "") for name in header]
        row = row[: len(row) - less] + list(more)
        text = io.StringIO()
        csv.writer(text).writerows([header, row])
        content = raw(text.getvalue())
        content = content if isinstance(content, bytes) else content.encode()
        files = {"csv_file": ("runs.csv", content, "text/csv")}
        return ada.ask("prov", "POST", "/bulk/convert_model_runs/csv", files=files)

    return convert


def test_a_sheet_is_converted(sheet):
    """The template's form is read, also with dates that have slashes."""
    new = sheet().json()["new_records"]
    assert [(run["display_name"], run["start_time"]) for run in new] == [("run", 1704067200)]
    assert sheet(execution_start="2024/01/01 00:00:00+00:00").json()["new_records"] == new
    assert sheet(raw=lambda text: f"{text}\r\n\r\n").json()["new_records"] == new


FAULTS = {
    "an unknown input": {"Input_dataset": "102.100.100/1"},
    "an unknown output": {"Output_dataset": "102.100.100/1"},
    "a cell too many": {"more": ["note"]},
    "an empty cell too many": {"more": [""]},
    "a cell too few": {"less": 1},
    "a byte-order mark": {"raw": lambda text: b"\xef\xbb\xbf" + text.encode()},
    "a row of empty cells": {"raw": lambda text: text + "," * text.partition("\n")[0].count(",") + "\r\n"},
    "a row of blanks": {"raw": lambda text: text + "  \r\n"},
    "a blank in the header": {"raw": lambda text: text.replace("display name", " display name")},
    "no rows": {"raw": lambda text: text.partition("\n")[0]},
    "nothing": {"raw": lambda text: ""},
    "another encoding": {"raw": lambda text: text.encode("utf-16")},
    "tenths of a second": {"execution_start": "2024-01-01 00:00:00.5+00:00"},
    "milliseconds": {"execution_start": "2024-01-01 00:00:00.500+00:00"},
    "an offset without a colon": {"execution_start": "2024-01-01 00:00:00+1000"},
    "Z": {"execution_start": "2024-01-01T00:00:00Z"},
    "a time without signs": {"execution_start": "20240101T000000+00:00"},
    "no offset": {"execution_start": "2024-01-01 00:00:00"},
    "a month too many": {"execution_start": "2024-13-01 00:00:00+00:00"},
    "an end before the start": {"execution_end": "2023-01-01 00:00:00+00:00"},
    "a job that is none": {"job": "note"},
    "a blank name": {"display_name": " "},
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_what_a_sheet_may_not_have(sheet, change):
    """A sheet with one fault gets 400, and none of its rows is converted."""
    reply = sheet(**change)
    assert reply.status_code == 400, reply.text
    assert isinstance(reply.json()["detail"], str)


def test_references_in_a_sheet_are_checked_unless_its_row_has_a_job(sheet, record):
    """An item of another subtype is refused like an unknown one.

    Any UUID counts as a job, in any form, and is returned as it was written.
    """
    assert sheet(Input_dataset=record["workflow_template_id"]).status_code == 400
    job = "1B4E28BA-2FA1-11D2-883F-0016D3CCA427"
    body = sheet(job=job, Input_dataset="").json()
    assert (body["new_records"], body["existing_records"]) == ([], [job])


def test_a_refusal_says_by_its_form_whether_anything_was_made(ada, local_platform, record):
    """A create that is refused names nothing: 200 without success, 400, or 401 with a challenge. Only for a mint by a
    user without a person is the answer one of a server that failed."""
    unlinked = local_platform.user("PROVENA_OFFLINE_TOKEN_UNLINKED")
    reader = local_platform.user("PROVENA_OFFLINE_TOKEN_READER")
    owner, person, model = ada.organisation(), ada.person(), {"display_name": "w", "software_id": "no-such-model"}
    good, mint, create = collection(owner), "/register/mint-dataset", "/create"
    described, approved = good["dataset_info"], good["approvals"]
    late = {"created_date": {"relevant": True, "value": "2001-01-01"}}
    late["published_date"] = {"relevant": True, "value": "2000-01-01"}
    for user, api, path, body, status, success in (
        (ada, "registry", PREFIXES["workflow"] + create, model, 200, False),
        (unlinked, "registry", PREFIXES["template"] + create, {"display_name": "t"}, 400, None),
        (reader, "registry", PREFIXES["organisation"] + create, {"display_name": "o", "name": "o"}, 401, None),
        (ada, "data_store", mint, collection("no-such-organisation"), 200, False),
        (ada, "data_store", mint, good | {"dataset_info": described | {"publisher_id": person}}, 200, False),
        (ada, "data_store", mint, good | {"dataset_info": described | late}, 200, False),
        (ada, "data_store", mint, good | {"approvals": approved | {"ethics_access": {"relevant": True}}}, 200, False),
        (ada, "data_store", mint, good | {"unknown": 1}, 422, None),
        (reader, "data_store", mint, good, 401, None),
        (unlinked, "data_store", mint, good, 500, None),
    ):
        reply = user.ask(api, "POST", path, json=body)
        assert answer(reply) == (status, success), (path, body)
        assert success is None or not any(value for name, value in reply.json().items() if name != "status")
        assert ("www-authenticate" in reply.headers) == (status == 401)


def test_a_registration_is_refused_at_once(ada, ben, record):
    """With 400, a 401 without a challenge for what is closed, and 422 for what has not the form of a record."""
    model = ada.create("entity/model", name="m", description="d", documentation_url=URL, source_url=URL)
    more = {"annotations": {"required": ["region"]}, "software_id": model}
    needing = ada.create("entity/model_run_workflow", **more)
    closed = ben.create("activity/study", title="t", description="d")
    access, query = f"{PREFIXES['study']}/auth/configuration", {"id": closed}
    settings = ben.ask("registry", "GET", access, params=query).json() | {"general": []}
    ben.ask("registry", "PUT", access, params=query, json=settings).raise_for_status()
    [taken], people = record["inputs"], record["associations"]
    for changes, status in (
        ({"workflow_template_id": needing, "inputs": [], "outputs": []}, 400),
        ({"workflow_template_id": "none"}, 400),
        ({"workflow_template_id": model}, 400),
        ({"study_id": "none"}, 400),
        ({"study_id": closed}, 401),
        ({"inputs": []}, 400),
        ({"inputs": [taken, taken | {"dataset_template_id": "none"}]}, 400),
        ({"inputs": [taken | {"dataset_id": "none"}]}, 400),
        ({"inputs": [taken | {"resources": {"unknown": "a"}}]}, 400),
        ({"associations": {"modeller_id": model}}, 400),
        ({"associations": people | {"requesting_organisation_id": model}}, 400),
        ({"display_name": ""}, 422),
        ({"start_time": 3}, 422),
    ):
        reply = ada.ask("prov", "POST", "/model_run/register", json=record | changes)
        assert reply.status_code == status and "session_id" not in reply.json(), (changes, reply.text)
        assert "www-authenticate" not in reply.headers
