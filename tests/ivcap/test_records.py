"""Wire records: tolerant of older, newer and careless servers, and handles made of them."""

import pytest
from pydantic import ValidationError

from ivcap_flows.ivcap.artifacts import ArtifactRecord
from ivcap_flows.ivcap.aspects import AspectRecord
from ivcap_flows.ivcap.job_records import JobRecord, is_json_type
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.ivcap.services import ServiceRecord

ORDER = {
    "id": "urn:ivcap:order:f7f0",
    "status": "succeeded",
    "ordered-at": "2023-11-08T06:54:38Z",
    "parameters": [
        {"name": "cayp-order-id", "value": "urn:ivcap:order:f7f0"},
        {"name": "series", "value": "urn:ivcap:artifact:in"},
        {"name": "n", "value": 5},
        {"name": "flag", "value": True},
        {"name": "nothing"},
    ],
    "products": {
        "items": [
            {"id": "urn:ivcap:artifact:0ed0", "dataRef": "https://h/blob", "name": "", "size": 369, "status": ""}
        ],
        "links": [],
    },
}


def test_an_order_becomes_a_handle():
    """Times, parameters and products of a reply as deployments send it, the older `dataRef` included. A server that
    keeps numbers does not break a handle."""
    record = OrderRecord.model_validate(ORDER)
    assert record.done and record.products.items[0].data_href == "https://h/blob"
    handle = record.handle("https://h", service_name="index", key="k1:0")
    assert (handle.succeeded, handle.service_name, handle.key) == (True, "index", "k1:0")
    assert handle.requested_at.isoformat() == "2023-11-08T06:54:38+00:00"
    assert handle.inputs == ("urn:ivcap:artifact:in",)
    assert (handle.parameters["n"], handle.parameters["flag"], "nothing" in handle.parameters) == ("5", "true", False)
    [product] = handle.products
    assert (product.urn, product.name, product.size) == ("urn:ivcap:artifact:0ed0", None, 369)
    assert handle.model_validate_json(handle.model_dump_json()) == handle


@pytest.mark.parametrize("cls", [ArtifactRecord, OrderRecord, JobRecord, ServiceRecord, AspectRecord])
def test_a_newer_server_does_not_break_us(cls):
    """Unknown fields and statuses are kept; optional fields may be missing or null; a bare id becomes a URN. What
    cannot be named is no record."""
    least = {"id": "1", "entity": "urn:e", "schema": "urn:s"} if cls is AspectRecord else {"id": "1"}
    record = cls.model_validate({**least, "status": "hibernating", "brand-new": {"a": 1}})
    assert record.status == "hibernating"
    assert record.model_extra["brand-new"] == {"a": 1}
    assert record.urn.startswith("urn:ivcap:")
    optional = [
        f.validation_alias or f.alias for n, f in cls.model_fields.items() if not f.is_required() and n != "status"
    ]
    nulls = {alias: None for alias in optional if isinstance(alias, str)}
    assert cls.model_validate({**least, **nulls}).urn == record.urn
    assert record.handle("p").urn == record.urn
    with pytest.raises(ValidationError):
        cls.model_validate({**least, "id": None})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-06-01T10:00:00Z", "2026-06-01T10:00:00+00:00"),
        ("2026-06-01T10:00:00.123456789Z", "2026-06-01T10:00:00.123456+00:00"),
        ("2026-06-01T20:00:00+10:00", "2026-06-01T20:00:00+10:00"),
        ("2026-06-01T10:00:00", "2026-06-01T10:00:00+00:00"),
        ("", None),
        (None, None),
    ],
)
def test_times_have_an_offset_and_an_unknown_size_is_none(text, expected):
    """Nanoseconds are cut, a missing offset is UTC, an empty text is no time. -1 stands for an unknown size."""
    record = ArtifactRecord.model_validate({"id": "1", "created-at": text, "size": -1})
    assert (record.created_at.isoformat() if record.created_at else None) == expected
    assert record.handle("p").size is None


def test_which_results_are_json():
    """Results with a schema have a type of their own and are JSON."""
    json_types = ("application/json", "application/json; charset=utf-8", "application/vnd.ivcap.urn:sd:schema:x.1")
    assert all(map(is_json_type, json_types))
    assert not any(map(is_json_type, ("text/plain", "application/octet-stream", None)))
