"""What tasks make is materialised as assets of Prefect, under keys that stay the same, by a real server's events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
def asset_events(prefect_events, effects: Any) -> Callable[..., list[dict[str, Any]]]:
    """Return the events of these assets in the newest run, the oldest first, once there are so many."""

    def of_run(keys: set[str], count: int, *, event: str = MATERIALIZED) -> list[dict[str, Any]]:
        found = prefect_events(
            count,
            event={"name": [event]},
            resource={"id": sorted(keys)},
            related={"id": [f"prefect.flow-run.{effects.flow_run()}"]},
        )
        assert len(found) == count, found
        return found

    return of_run


def upstream(event: dict[str, Any]) -> set[str]:
    """Return the assets that this one depends on."""
    return {each["prefect.resource.id"] for each in event["related"] if each["prefect.resource.role"] == "asset"}


def host(handle: Handle) -> str:
    return handle.platform.rpartition(":")[2]


def test_products_depend_on_the_inputs_of_their_order(in_flow, tasks_service, source, tmp_path, asset_events):
    """The key of each has the platform, the service or the kind, and the name; the rest is metadata.

    Not on other uploads, although all handles share texts; and what a task of the user's made stays a dependency. A
    second upload and a second wait make nothing, but what is made of their results still depends on them.
    """
    users, after = "test://what-the-user-made", "test://what-comes-after"

    @materialize(users)
    def prepared():
        return source

    @materialize(after)
    def summary(order):
        return len(order.products)

    def body():
        (tmp_path / "other.csv").write_text("other")
        path = prepared()
        for _ in range(2):
            series = upload_artifact(path)
            upload_artifact(tmp_path / "other.csv")
            [done] = wait_for_orders([place_order(tasks_service, {"series": series, "base": 1})])
        summary(done)
        [again] = wait_for_orders([place_order(tasks_service, {"series": done.products["upper.csv"], "base": 2})])
        return series, done, again

    series, done, again = in_flow(body)
    uploaded = f"ivcap://{host(series)}/artifacts/series.csv"
    upper, lower = (f"ivcap://{host(series)}/services/{tasks_service}/{name}.csv" for name in ("upper", "lower"))
    [made] = asset_events({uploaded}, 1)
    assert made["payload"] == {"urn": series.urn, "sha256": series.sha256} and upstream(made) == {users}
    assert made["resource"]["prefect.resource.name"] == "series.csv"
    for key in (upper, lower):
        first, second = asset_events({key}, 2)
        for event, order in ((first, done), (second, again)):
            assert event["payload"] == {"urn": order.products[key.rpartition("/")[2]].urn, "order": order.urn}
            by = [each for each in event["related"] if each["prefect.resource.role"] == "asset-materialized-by"]
            assert [each["prefect.resource.id"] for each in by] == ["ivcap"]
        assert upstream(first) - {users} == {uploaded}
        assert upstream(second) - {users} == {upper}
    assert {upper, lower} <= upstream(asset_events({after}, 1)[0])
    asset_events({uploaded}, 2, event="prefect.asset.referenced")


def test_many_orders_of_a_service_make_one_version_each(in_flow, tasks_service, source, unique, asset_events):
    """One asset, whose metadata name the versions. A wait that fails makes nothing: Prefect would say of the products
    of the other orders that they could not be made."""

    def body():
        series = upload_artifact(source)

        def order(base):
            return place_order(tasks_service, {"series": series, "base": base})

        done = wait_for_orders([order(base) for base in (1, 2, 3)])
        with pytest.raises(OrderFailedError):
            wait_for_orders([order(4), place_order("fail", {"message": unique})])
        return done

    done = in_flow(body)
    key = f"ivcap://{host(done[0].products[0])}/services/{tasks_service}/upper.csv"
    [made] = asset_events({key}, 1)
    assert made["payload"]["count"] == 3
    assert {each["order"] for each in made["payload"]["versions"]} == {order.urn for order in done}
    assert asset_events({key}, 0, event="prefect.asset.materialization.failed") == []


def test_jobs_folders_collections_datasets_and_model_runs(
    in_flow, tasks_service, source, ended_order, registry, asset_events, unique
):
    """Products of jobs like those of orders, a folder as one asset, an upload in the place of its collection. A
    registration makes the datasets of all artifacts, and what is made of the model run depends on all of them."""
    after = "test://what-comes-after"
    (source.parent / "two").mkdir()
    names = ("a.txt", "b.txt")
    for name in names:
        (source.parent / "two" / name).write_text(unique + name)

    @materialize(after)
    def summary(run):
        return run.urn

    def body():
        collection = create_collection(f"series {unique}")
        series = upload_artifact(source, collection=collection)
        folder = upload_directory(source.parent / "two", pack="collection", name=f"two-{unique}")
        [job] = wait_for_jobs([request_job(tasks_service, {"series": series, "base": 1981})])
        minted = mint_dataset(series, terms=registry.terms)
        one, other = (upload_artifact(source.parent / "two" / name, name=f"{unique}-{name}") for name in names)
        run = register_model_run(
            ended_order,
            workflow_template=registry.workflow,
            inputs={registry.template: one},
            outputs={registry.template: other},
            terms=registry.terms,
        )
        summary(run)
        return series, folder, job, minted

    series, folder, job, dataset = in_flow(body)
    place, provena = f"ivcap://{host(series)}", f"provena://{host(dataset)}/datasets"
    uploaded = f"{place}/collections/series-{unique}/series.csv"
    minted = f"{provena}/series.csv"
    product = f"{place}/services/{tasks_service}/upper.csv"
    found = {
        each["resource"]["prefect.resource.id"]: each
        for each in asset_events({uploaded, minted, product, f"{place}/collections/two-{unique}"}, 4)
    }
    assert found[f"{place}/collections/two-{unique}"]["payload"]["urn"] == folder.urn
    assert found[product]["payload"]["job"] == job.urn
    assert upstream(found[product]) == upstream(found[minted]) == {uploaded}
    assert found[minted]["payload"] == {
        "urn": dataset.urn,
        "artifact": series.urn,
        "artifact_sha256": series.sha256,
    }
    registered = {f"{provena}/{unique}-{name}" for name in names}
    of_artifacts = {f"{place}/artifacts/{unique}-{name}" for name in names}
    assert [upstream(each) for each in asset_events(registered, 2)] == [of_artifacts] * 2
    # For a user's own task, Prefect may take an object in the place of one that is gone for that one.
    assert upstream(asset_events({after}, 1)[0]) >= registered


def test_a_reused_order_makes_nothing(in_flow, effects, tasks_service, source, asset_events):
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
    asset_events({key}, 1)
    assert in_flow(body, name="another") == first
    assert key in upstream(asset_events({after}, 1)[0])
    assert asset_events({key}, 0) == []


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


def test_dependencies_are_as_many_as_an_event_takes(in_flow, effects, asset_events, unique):
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
    assert 50 < len(upstream(asset_events({f"ivcap://x/artifacts/{unique}-one"}, 1)[0])) < 100
