"""The records that handles of work imply."""

from datetime import datetime, timezone

import pytest

from ivcap_flows.handles import Job, JobEvent, Service
from ivcap_flows.provenance.describe import MOST, describe

SERVICE = "urn:ivcap:service:1"
AT = datetime(2026, 6, 1, tzinfo=timezone.utc)


def job(*events, service=SERVICE):
    return Job(urn="urn:ivcap:job:1", platform="p", service=service, events=events)


@pytest.mark.parametrize(
    ("data", "schema", "shown"),
    [
        ({"name": "n", "options": {"message": "m"}}, "urn:s", {"name": "n", "message": "m"}),
        ({"error": "e", "context": "c"}, "urn:s", {"name": "urn:s", "message": "e"}),
        ({"message": "x" * 500}, None, {"name": "ivcap.job.event", "message": "x" * 200}),
        ("in words", None, {"name": "ivcap.job.event", "message": "in words"}),
        ({"message": {"no": "text"}, "options": [1]}, None, {"name": "ivcap.job.event"}),
        (None, None, {"name": "ivcap.job.event"}),
    ],
)
def test_an_event_is_told_in_brief(data, schema, shown):
    """An event is recorded with its name, its time and the beginning of its message."""
    stated = describe(job(JobEvent(id="1", type="ivcap.job.event", schema_urn=schema, at=AT, data=data)))[0]
    assert stated.attributes["events"] == [shown | {"at": AT.isoformat()}]


def test_work_without_events_or_service_states_none():
    """Work from a listing may have neither events nor a service, and then states none."""
    [stated] = describe(job(service=""))
    assert "events" not in stated.attributes


def test_a_service_is_an_entity_with_its_name():
    """A service is recorded as an entity with its name, the plan of orders and jobs."""
    [stated] = describe(Service(urn=SERVICE, platform="p", name="echo"))
    assert (stated.kind, stated.type, stated.id, stated.attributes["name"]) == ("entity", "service", SERVICE, "echo")


def test_a_long_request_is_recorded_by_its_sha256():
    """Each call that is given the job states it anew. With a secret in it, there is no sha256 to guess it by."""

    def request(**given):
        [stated, *_] = describe(job().model_copy(update={"request": given}))
        return stated.attributes["request"]

    long = "x" * MOST
    assert request(text="short") == {"text": "short"}
    assert len(request(text=long)) < 150 and request(text=long) == request(text=long) != request(text=long + "y")
    assert request(text=long, password="one") == request(text=long, password="two")
