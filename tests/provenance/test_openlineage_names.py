"""Names in OpenLineage: one name for all versions of a thing, and the same in all events."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ivcap_flows.provenance import Graph, Record, activity, entity, relation
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.openlineage import events

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
IVCAP = "https://develop.ivcap.net"


def told(*records: Record) -> list[tuple[Any, Any]]:
    """Return the last event of an order that used and made these things, with its datasets."""
    order = activity(
        "urn:ivcap:order:1", "order", NOON, NOON + timedelta(seconds=1), outcome="completed", platform=IVCAP
    )
    service = entity("urn:ivcap:service:1", "service", name="season")
    links = [relation("wasGeneratedBy", each.id, order.id, role="result") for each in records]
    return events(Graph([order, service, relation("hadPlan", order.id, service.id), *records, *links]))


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (entity("urn:ivcap-flows:file:1", "file", path="/data/a.csv"), ("file", "/data/a.csv")),
        (entity("urn:ivcap-flows:directory:1", "directory", path="/data"), ("file", "/data")),
        (
            entity("urn:ivcap:artifact:1", "artifact", name="a.csv", platform=IVCAP),
            ("ivcap://develop.ivcap.net", "a.csv"),
        ),
        (
            entity("urn:ivcap:artifact:1", "artifact", platform=IVCAP),
            ("ivcap://develop.ivcap.net", "urn:ivcap:artifact:1"),
        ),
        (
            entity("102.100.100/1", "dataset", name="Index", platform="https://auth.provena.io/realms/r"),
            ("provena://auth.provena.io", "Index"),
        ),
        (entity("102.100.100/1", "dataset"), ("https://hdl.handle.net", "https://hdl.handle.net/102.100.100/1")),
        (entity("s3://bucket/set/a.csv", "dataset-file", name="a.csv", platform="p"), ("s3://bucket", "set/a.csv")),
        (
            entity("urn:ivcap:aspect:1", "aspect", platform=IVCAP, about="urn:x:1", schema="urn:s:1"),
            ("ivcap://develop.ivcap.net", "urn:x:1/urn:s:1"),
        ),
        (entity("urn:ivcap-flows:frame:1", "frame"), ("ivcap-flows", "season.result")),
    ],
)
def test_a_dataset_has_a_logical_name_and_its_urn_as_version(thing, name):
    """A file is named by its path, a thing on a platform by its name there, a value in memory by its maker and role."""
    _, end = told(thing)
    [made] = end.outputs
    assert (made.namespace, made.name) == name
    assert made.facets["version"].datasetVersion == uri(thing.id)


def test_a_job_is_its_service_and_tells_the_urn():
    """An order's job is its service, so all orders of a service are runs of one job."""
    for event in told():
        assert (event.job.namespace, event.job.name) == ("ivcap://develop.ivcap.net", "season")
        [tag] = event.job.facets["tags"].tags
        assert (tag.key, tag.value) == ("urn", "urn:ivcap:service:1")


def test_versions_of_a_dataset_share_its_name_in_all_events():
    """A file that one task made, and another used and changed, has one name and two versions."""
    first, second = (entity(f"urn:ivcap-flows:file:sha256:{n}", "file", path="/data/a.csv") for n in (1, 2))
    make, change = (
        activity(f"urn:ivcap-flows:task-run:{name}", "task-run", NOON, NOON + timedelta(seconds=1), outcome="completed")
        for name in ("make", "change")
    )
    links = [
        relation("wasGeneratedBy", first.id, make.id),
        relation("used", change.id, first.id),
        relation("wasGeneratedBy", second.id, change.id),
    ]
    said = events(Graph([first, second, make, change, *links]))
    datasets = [each for event in said for each in [*(event.inputs or []), *(event.outputs or [])]]
    assert {(each.namespace, each.name) for each in datasets} == {("file", "/data/a.csv")}
    assert {each.facets["version"].datasetVersion for each in datasets} == {first.id, second.id}
