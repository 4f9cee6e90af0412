"""What the official Python client has no method for, or a broken one, works on the embedded IVCAP by the raw call.

`BY_METHOD` and `BY_HAND` together are all that users of IVCAP do with it: what the official client has a method for,
and what it cannot do, with the call that stands in and why. Both are held against counted calls.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from contract_values import agree, gather, plain

from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.loop import run

pytestmark = [
    pytest.mark.contract,
    pytest.mark.long,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the official IVCAP client needs Python 3.11"),
]

BY_METHOD = {
    "services: list": "IVCAP.list_services",
    "services: get": "IVCAP.get_service",
    "services: by name": "IVCAP.get_service_by_name",
    "services: parameters": "Service.parameters",
    "services: mandatory parameters": "Service.mandatory_parameters",
    "services: status": "Service.status",
    "services: request model": "Service.request_model",
    "orders: list": "IVCAP.list_orders",
    "orders: get": "IVCAP.get_order",
    "orders: status": "Order.status",
    "orders: parameters": "Order.parameters",
    "orders: add metadata": "Order.add_metadata",
    "jobs: request": "Service.request_job",
    "services: request model, asynchronously": "Service.request_model_async",
    "jobs: request and wait": "Service.request_job_async",
    "jobs: succeeded": "Job.succeeded",
    "jobs: status": "Job.status",
    "jobs: finished": "Job.finished",
    "jobs: result": "Job.result",
    "aspects: add": "IVCAP.add_aspect",
    "aspects: update": "IVCAP.update_aspect",
    "aspects: list, by content path, at a time, ordered": "IVCAP.list_aspects",
    "aspects: get": "Aspect.refresh",
    "aspects: content": "Aspect.content",
    "aspects: retract": "Aspect.retract",
    "artifacts: upload of a file or stream": "IVCAP.upload_artifact",
    "artifacts: upload as one tar, of unknown size": "IVCAP.upload_tar_artifact",
    "artifacts: list": "IVCAP.list_artifacts",
    "artifacts: get": "IVCAP.get_artifact",
    "artifacts: artifact of a file": "IVCAP.artifact_for_file",
    "artifacts: status": "Artifact.status",
    "artifacts: open": "Artifact.open",
    "artifacts: stream": "Artifact.as_stream",
    "artifacts: to a local file": "Artifact.as_local_file",
    "artifacts: data URL": "Artifact.as_data_url",
    "artifacts: data URL as an artifact": "DataUrlArtifact.open",
    "artifacts: untar": "Artifact.untar",
    "artifacts: metadata": "Artifact.metadata",
    "artifacts: add metadata": "Artifact.add_metadata",
    "collections: create": "IVCAP.create_collection",
    "collections: get": "IVCAP.get_collection",
    "collections: list": "IVCAP.list_collections",
    "collections: add": "IVCAP.add_to_collection",
    "collections: remove": "IVCAP.remove_from_collection",
    "collections: add to a collection at hand": "Collection.add_item",
    "collections: remove from a collection at hand": "Collection.remove_item",
    "collections: items": "Collection.items",
    "collections: retract": "IVCAP.retract_collection",
    "agents: get": "IVCAP.get_agent",
    "agents: exec": "Agent.exec_agent",
    "secrets: list": "IVCAP.list_secrets",
    "search": "IVCAP.search",
}
"""Use of the platform -> the official client's method."""

BY_HAND = {
    "services: register": ("service_service_create", "no method"),
    "services: register or replace": ("service_service_update", "no method"),
    "services: withdraw": ("service_service_delete", "no method"),
    "services: legacy list": ("servicex_list", "no method"),
    "orders: place": ("order_create", "no method"),
    "orders: products": ("order_products", "no method; an Order discards them"),
    "orders: metadata": ("order_metadata", "Order.metadata calls a method that does not exist"),
    "orders: logs": ("GET /1/orders/{id}/logs", "no method; the generated call takes text for JSON and fails"),
    "orders: top": ("order_top", "no method"),
    "orders: ordered list": ("order_list", "an Order looks for its times under names that the wire does not have"),
    "jobs: get": ("service_job_read", "a Job cannot be made of an id, and hides error, order and products"),
    "jobs: list of a service": ("service_job_list", "JobIter fails: it makes a Service without a client"),
    "jobs: service of a job": ("IVCAP.list_aspects", "no method; the aspect job.2 tells"),
    "jobs: request by an aspect": ("POST /1/services2/{service}/jobs", "request_job takes no document of another kind"),
    "jobs: output": ("GET /1/services2/{service}/jobs/{id}/output", "the generated call fails on a JSON result"),
    "jobs: events": ("GET /1/services2/{service}/jobs/{id}/events", "no call at all"),
    "aspects: get with policy and asserter": ("aspect_read", "an Aspect leaves them out"),
    "artifacts: part of the bytes": ("GET /1/artifacts/{id}/blob", "no method takes a range"),
    "secrets: get": ("secret_get", "no method"),
    "secrets: set": ("secret_set", "no method"),
    "queues: create": ("queue_create", "no method"),
    "queues: list": ("queue_list", "no method"),
    "queues: get": ("queue_read", "no method"),
    "queues: enqueue": ("queue_enqueue", "no method"),
    "queues: dequeue": ("queue_dequeue", "no method"),
    "queues: delete": ("queue_delete", "no method"),
    "projects: create": ("project__create_project", "no method"),
    "projects: get": ("project_read", "no method"),
    "projects: list": ("project_list", "no method"),
    "projects: delete": ("project_delete", "no method"),
    "packages: list": ("package_list", "no method"),
    "dashboards: list": ("dashboard_list", "no method"),
    "legacy metadata: add": ("metadata_add", "no method"),
    "legacy metadata: list": ("metadata_list", "no method"),
}
"""Use of the platform -> the call that stands in for a method, and why there is none to use."""


@pytest.fixture(scope="module")
def ours(served: Any) -> Any:
    """Our client of the same account."""
    client = IvcapClient(served.environment["IVCAP_URL"], StaticToken(served.environment["IVCAP_JWT"]))
    yield client
    run(client.aclose())


def test_each_use_of_the_platform_was_made(by_method, by_hand, record_property):
    """Every method that users have was called, and every call that stands in for one that is missing or broken."""
    calls = {**by_method["calls"]}
    for name, count in by_hand["calls"].items():
        calls[name] = calls.get(name, 0) + count
    record_property("official ivcap-client", calls)
    unused = [use for use, name in BY_METHOD.items() if not calls.get(name)]
    unused += [use for use, (name, _) in BY_HAND.items() if not calls.get(name)]
    assert unused == []
    assert not set(BY_METHOD) & set(BY_HAND)


def test_services_are_registered_by_hand(by_hand, ours):
    """Made, refused a second time, replaced; unknown ones are replaced by force only; withdrawn ones are gone."""
    told = by_hand["services"]
    service = run(ours.services.read(told["made"]["id"]))
    assert (service.description, told["read"]["description"]) == ("Second.", "Second.")
    assert (told["twice"], told["unknown"]) == (409, 404)
    assert told["fields"]["id"] == service.urn
    assert [(each.name, each.type, each.unit) for each in service.parameters] == [("depth", "float", "m")]
    assert told["gone"] not in {each.urn for each in run(gather(ours.services.list()))}
    assert told["legacy"] > 0


def test_orders_tell_of_themselves(by_hand, ours):
    """While one runs its use of the machine, later its metadata and what it wrote."""
    told = by_hand["orders"]
    assert told["status"] == "succeeded"
    assert told["top"]
    assert all({"container", "cpu", "memory", "storage", "ephemeral-storage"} <= set(each) for each in told["top"])
    assert told["held"] == [{"$schema": "urn:contract:schema:held.1", "$entity": told["urn"], "by": "hand"}]
    ours_of_it = run(gather(ours.aspects.list(entity=told["urn"])))
    assert {each["id"] for each in told["metadata"]} == {each.urn for each in ours_of_it}
    assert plain(told["metadata"]) == plain(run(gather(ours.orders.metadata(told["urn"]))))
    assert told["logs"].splitlines() == run(gather(ours.orders.logs(told["talkative"])))
    assert told["listed"][0] == told["talkative"]
    assert "words" in told["logs"]


def test_a_job_is_told_by_its_output_events_and_aspect(by_hand, ours):
    """The result as it is, the events to the end, the service by the job's id, and a request that is an aspect."""
    told = by_hand["jobs"]
    output = run(ours.jobs.output(told["service"], told["id"]))
    assert told["output"] == [output.media_type, output.content.decode()]
    assert told["events"].startswith("id: ")
    assert '"succeeded"' in told["events"]
    assert told["service_of"] == told["service"] == run(ours.jobs.service_of(told["id"]))
    assert told["indirect"] == {"message": "from an aspect"}


def test_an_agent_is_a_service_that_answers(by_hand):
    """By the official client's own agent."""
    assert by_hand["agents"]["result"] == {"message": "agent"}


def test_secrets_are_kept(by_hand, ours):
    """Set and read by name, listed over pages without their values, unknown ones refused; ours reads the same."""
    told = by_hand["secrets"]
    record = run(ours.secrets.get(told["names"][0]))
    assert told["first"]["secret-value"] == f"value of {told['names'][0]}" == record.secret_value.get_secret_value()
    assert (told["first"]["secret-name"], told["first"]["expiry-time"]) == (record.secret_name, record.expiry_time)
    assert set(told["names"]) <= set(told["listed"])
    assert told["listed"] == [each.secret_name for each in run(gather(ours.secrets.list()))]
    assert told["missing"] == 404


def test_search_finds_by_content(by_hand, ours):
    """A program over loaded aspects gives each match once, and ours the same."""
    told = by_hand["search"]
    assert told["items"] == ["urn:contract:place:10"] == run(gather(ours.search(told["program"])))


def test_a_queue_gives_its_messages_once_in_order(by_hand, ours):
    """Two of three are taken, the first ones; a second queue of the name is refused, a deleted one is gone."""
    told = by_hand["queues"]
    queue = run(ours.queues.read(told["id"]))
    assert queue.total_messages == 1
    counted = ("total-messages", "bytes", "first-time", "last-time")
    agree({name: part for name, part in told["read"].items() if name not in counted}, queue)
    assert [each.content for each in run(ours.queues.dequeue(told["id"], limit=5))] == [{"n": 2}]
    assert (told["read"]["total-messages"], told["twice"], told["gone"]) == (3, 409, 404)
    assert [each["content"] for each in told["taken"]] == [{"n": 0}, {"n": 1}]
    assert told["id"] in told["listed"]


def test_projects_and_older_names_work(by_hand):
    """A project is made and listed; metadata under its older name is an aspect."""
    told = by_hand["projects"]
    assert told["urn"] in told["listed"]
    assert told["read"]["name"] == "By hand"
    [record] = by_hand["metadata"]["listed"]
    assert record["entity"] == by_hand["metadata"]["entity"]
    assert len(by_hand["metadata"]["aspects"]) == 1


def test_bytes_come_in_part_and_inline(by_hand, ours, official_folder):
    """A range of an artifact, and an artifact that is its own data URL."""
    told = by_hand["artifacts"]
    status, content = told["range"]
    whole = (official_folder / "upload.bin").read_bytes()
    assert bytes.fromhex(content) == (whole[10:20] if status == 206 else whole)
    assert told["inline"] == "inline"
    assert told["status"] == "ready"
