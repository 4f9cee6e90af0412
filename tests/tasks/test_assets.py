"""What tasks make is materialised as assets of Prefect, under keys that stay the same, by a real server's events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prefect import task
from prefect.assets import materialize

from ivcap_flows.errors import OrderFailedError
from ivcap_flows.handles import Artifact, Dataset, Handle
from ivcap_flows.tasks import (
    create_collection,
    mint_dataset,
    place_order,
    register_model_run,
    request_job,
    upload_artifact,
    upload_directory,
    wait_for_jobs,
    wait_for_orders,
)
from ivcap_flows.tasks.assets import Version, note_assets

MATERIALIZED = "prefect.asset.materialization.succeeded"


@pytest.fixture
def listed(prefect_server: dict[str, str], effects: Any) -> Callable[..., list[dict[str, Any]]]:
    """Return the events of these assets in the newest run, the oldest first, once there are so many."""

    def of_run(keys: set[str], count: int, *, event: str = MATERIALIZED) -> list[dict[str, Any]]:
        [run, *_] = effects.journal.runs.recent(1)
        flow_run = effects.journal.runs.attempts(run.id)[0].flow_run_id
        chosen = {
            "event": {"name": [event]},
            "resource": {"id": sorted(keys)},
            "related": {"id": [f"prefect.flow-run.{flow_run}"]},
        }
        end = time.monotonic() + 60
        while True:
            asked = {"filter": {**chosen, "order": "ASC"}, "limit": 50}
            reply = httpx.post(f"{prefect_server['PREFECT_API_URL']}/events/filter", json=asked, timeout=60)
            found: list[dict[str, Any]] = reply.raise_for_status().json()["events"]
            if len(found) >= count:
                assert len(found) == count, found
                return found
            assert time.monotonic() < end, found
            time.sleep(0.2)

    return of_run


def upstream(event: dict[str, Any]) -> set[str]:
    """Return the assets that this one depends on."""
    return {each["prefect.resource.id"] for each in event["related"] if each["prefect.resource.role"] == "asset"}


def host(handle: Handle) -> str:
    return handle.platform.rpartition(":")[2]


def test_products_depend_on_what_was_uploaded(in_flow, effects, tasks_service, source, listed):
    """The key of each has the platform, the service or the kind, and the name; the rest is metadata."""

    def body():
        series = upload_artifact(source)
        order = place_order(tasks_service, {"series": series, "base": 1981})
        [done] = wait_for_orders([order])
        return series, done

    series, done = in_flow(body)
    uploaded = f"ivcap://{host(series)}/artifacts/series.csv"
    upper, lower = (f"ivcap://{host(series)}/services/{tasks_service}/{name}.csv" for name in ("upper", "lower"))
    [made] = listed({uploaded}, 1)
    assert made["payload"] == {"urn": series.urn, "sha256": series.sha256}
    assert made["resource"]["prefect.resource.name"] == "series.csv"
    products = {each["resource"]["prefect.resource.id"]: each for each in listed({upper, lower}, 2)}
    assert products[upper]["payload"] == {"urn": done.products["upper.csv"].urn, "order": done.urn}
    assert upstream(products[upper]) == upstream(products[lower]) == {uploaded}
    by = [each for each in products[upper]["related"] if each["prefect.resource.role"] == "asset-materialized-by"]
    assert [each["prefect.resource.id"] for each in by] == ["ivcap"]
    [used] = listed({uploaded}, 1, event="prefect.asset.referenced")
    assert used["resource"]["prefect.resource.id"] == uploaded


def test_what_was_made_before_is_not_made_again(in_flow, effects, tasks_service, source, listed):
    """A second upload and a second wait make nothing, but what is made of their results still depends on them."""
    after = "test://what-comes-after"

    @materialize(after)
    def summary(order):
        return len(order.products)

    def body():
        for _ in range(2):
            series = upload_artifact(source)
            [done] = wait_for_orders([place_order(tasks_service, {"series": series, "base": 1981})])
        summary(done)
        return series

    series = in_flow(body)
    keys = {f"ivcap://{host(series)}/services/{tasks_service}/{name}.csv" for name in ("upper", "lower")}
    assert keys <= upstream(listed({after}, 1)[0])
    listed({*keys, f"ivcap://{host(series)}/artifacts/series.csv"}, 3)


def test_many_orders_of_a_service_make_one_version_each(in_flow, effects, tasks_service, source, listed):
    """One asset, whose metadata name the versions."""

    def body():
        series = upload_artifact(source)
        return wait_for_orders([place_order(tasks_service, {"series": series, "base": base}) for base in (1, 2, 3)])

    done = in_flow(body)
    [made] = listed({f"ivcap://{host(done[0].products[0])}/services/{tasks_service}/upper.csv"}, 1)
    versions = made["payload"]["versions"]
    assert made["payload"]["count"] == 3
    assert {each["order"] for each in versions} == {order.urn for order in done}


def test_a_wait_that_fails_makes_nothing(in_flow, effects, tasks_service, source, unique, listed):
    """Prefect would say of the products of the other orders that they could not be made."""

    def body():
        series = upload_artifact(source)
        with pytest.raises(OrderFailedError):
            wait_for_orders(
                [place_order(tasks_service, {"series": series, "base": 1}), place_order("fail", {"message": unique})]
            )
        return series

    series = in_flow(body)
    listed({f"ivcap://{host(series)}/artifacts/series.csv"}, 1)
    key = f"ivcap://{host(series)}/services/{tasks_service}/upper.csv"
    assert listed({key}, 0) == listed({key}, 0, event="prefect.asset.materialization.failed") == []


def test_jobs_folders_collections_and_datasets(in_flow, effects, tasks_service, source, registry, listed, unique):
    """Products of jobs like those of orders, a folder as one asset, an upload in the place of its collection."""
    (source.parent / "two").mkdir()
    for name in ("a.txt", "b.txt"):
        (source.parent / "two" / name).write_text(unique + name)

    def body():
        collection = create_collection(f"series {unique}")
        series = upload_artifact(source, collection=collection)
        folder = upload_directory(source.parent / "two", pack="collection", name=f"two-{unique}")
        [job] = wait_for_jobs([request_job(tasks_service, {"series": series, "base": 1981})])
        return series, folder, job, mint_dataset(series, terms=registry.terms)

    series, folder, job, dataset = in_flow(body)
    place = f"ivcap://{host(series)}"
    uploaded = f"{place}/collections/series-{unique}/series.csv"
    minted = f"provena://{host(dataset)}/datasets/series.csv"
    product = f"{place}/services/{tasks_service}/upper.csv"
    found = {
        each["resource"]["prefect.resource.id"]: each
        for each in listed({uploaded, minted, product, f"{place}/collections/two-{unique}"}, 4)
    }
    assert found[f"{place}/collections/two-{unique}"]["payload"]["urn"] == folder.urn
    assert found[product]["payload"]["job"] == job.urn
    assert upstream(found[product]) == upstream(found[minted]) == {uploaded}
    assert found[minted]["payload"] == {
        "urn": dataset.urn,
        "artifact": series.urn,
        "artifact_sha256": series.sha256,
    }


def test_the_datasets_of_a_model_run(in_flow, effects, ended_order, source, tmp_path, registry, listed):
    """A registration makes the datasets of all artifacts, and what is made of the model run depends on all of them."""
    after = "test://what-comes-after"
    (tmp_path / "index.csv").write_text(source.read_text() + "index\n")

    @materialize(after)
    def summary(run):
        return run.urn

    def body():
        series, index = (upload_artifact(tmp_path / name) for name in ("series.csv", "index.csv"))
        run = register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: series},
            outputs={registry.template: index},
            terms=registry.terms,
        )
        summary(run)
        return series, run

    series, run = in_flow(body)
    names = ("series.csv", "index.csv")
    uploaded = {f"ivcap://{host(series)}/artifacts/{name}" for name in names}
    minted = {f"provena://{host(run)}/datasets/{name}" for name in names}
    assert [upstream(each) for each in listed(minted, 2)] == [uploaded, uploaded]
    assert upstream(listed({after}, 1)[0]) == minted


def test_a_reused_order_makes_nothing(in_flow, effects, tasks_service, source, listed):
    """Its products were made by the run that placed it."""
    after = "test://what-comes-after"

    @materialize(after)
    def summary(order):
        return order.products[0]

    def body():
        order = place_order(tasks_service, {"series": upload_artifact(source), "base": 1}, reuse=True)
        return summary(wait_for_orders([order])[0])

    first = in_flow(body)
    key = f"ivcap://{host(first)}/services/{tasks_service}/upper.csv"
    listed({key}, 1)
    assert in_flow(body, name="another") == first
    assert key in upstream(listed({after}, 1)[0])
    assert listed({key}, 0) == []


def test_keys_are_what_prefect_takes():
    """Characters that Prefect refuses are replaced, long names are cut, and a thing without a name has no key."""

    def key(name: str | None) -> str | None:
        platform = "https://develop.ivcap.net"
        return Version(Artifact(urn="urn:ivcap:artifact:1", platform=platform, name=name), "artifacts", True).key

    assert key("a b%c?.csv") == "ivcap://develop.ivcap.net/artifacts/a-b-c-.csv"
    assert len(key("x" * 1000) or "") == 512
    assert key(None) is None and key("") is None
    dataset = Dataset(urn="1/2", platform="https://auth.example.org/realms/x", display_name="Süd")
    assert Version(dataset, "datasets", True).key == "provena://auth.example.org/datasets/Süd"


def test_a_task_outside_of_a_flow_makes_assets_too(embedded_platform, ivcap_journal, source):
    """It fails nothing, and neither does a call of the body without Prefect."""
    assert upload_artifact(source).urn == upload_artifact.fn(source).urn


def test_dependencies_are_those_of_the_inputs(in_flow, effects, tasks_service, source, tmp_path, listed):
    """Not those of other uploads, although all handles share texts, and what a task of the user's made stays one."""
    users = "test://what-the-user-made"

    @materialize(users)
    def prepared():
        return source

    def body():
        (tmp_path / "other.csv").write_text("other")
        series = upload_artifact(prepared())
        upload_artifact(tmp_path / "other.csv")
        [done] = wait_for_orders([place_order(tasks_service, {"series": series, "base": 1})])
        [again] = wait_for_orders([place_order(tasks_service, {"series": done.products["upper.csv"], "base": 2})])
        return series, again

    series, _ = in_flow(body)
    uploaded = f"ivcap://{host(series)}/artifacts/series.csv"
    upper, lower = (f"ivcap://{host(series)}/services/{tasks_service}/{name}.csv" for name in ("upper", "lower"))
    assert upstream(listed({uploaded}, 1)[0]) == {users}
    first, second = listed({lower}, 2)
    assert upstream(first) - {users} == {uploaded}
    assert upstream(second) - {users} == {upper}


def test_dependencies_are_as_many_as_an_event_takes(in_flow, effects, listed, unique):
    """An event of Prefect takes a hundred related resources and would be refused with more."""

    def version(name: str) -> Version:
        artifact = Artifact(urn=f"urn:{unique}:{name}", platform="urn:ivcap-flows:embedded:x", name=f"{unique}-{name}")
        return Version(artifact, "artifacts", True)

    @task
    def many():
        note_assets([version(str(number)) for number in range(101)])

    @task
    def one():
        note_assets([version("one")], inputs=[version(str(number)).handle.urn for number in range(101)])

    in_flow(lambda: (many(), one()))
    assert 50 < len(upstream(listed({f"ivcap://x/artifacts/{unique}-one"}, 1)[0])) < 100
