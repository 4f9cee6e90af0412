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
    "name": "Order f7f0",
    "service": "urn:ivcap:service:19f9",
    "account": "urn:ivcap:account:45a0",
    "ordered-at": "2023-11-08T06:54:38Z",
    "started-at": "2023-11-08T06:59:16Z",
    "finished-at": "2023-11-08T06:59:35Z",
    "parameters": [
        {"name": "cayp-order-id", "value": "urn:ivcap:order:f7f0"},
        {"name": "series", "value": "urn:ivcap:artifact:in"},
    ],
    "products": {
        "items": [
            {
                "id": "urn:ivcap:artifact:0ed0",
                "href": "https://h/1/artifacts/0ed0",
                "dataRef": "https://h/1/artifacts/0ed0/blob",
                "mime-type": "application/json",
                "name": "",
                "size": 369,
                "status": "",
            }
        ],
        "links": [],
    },
}


def test_an_order_becomes_a_handle():
    """Times, parameters and products of a reply as deployments send it, the older `dataRef` included."""
    record = OrderRecord.model_validate(ORDER)
    assert record.done
    assert record.products.items[0].data_href == "https://h/1/artifacts/0ed0/blob"
    handle = record.handle("https://h", service_name="index", key="k1:0")
    assert handle.succeeded
    assert (handle.requested_at.isoformat(), handle.service_name, handle.key) == (
        "2023-11-08T06:54:38+00:00",
        "index",
        "k1:0",
    )
    assert handle.inputs == ("urn:ivcap:artifact:in",)
    [product] = handle.products
    assert (product.urn, product.name, product.size) == ("urn:ivcap:artifact:0ed0", None, 369)
    assert handle.model_validate_json(handle.model_dump_json()) == handle


@pytest.mark.parametrize(
    ("cls", "least"),
    [
        (ArtifactRecord, {}),
        (OrderRecord, {}),
        (JobRecord, {}),
        (ServiceRecord, {}),
        (AspectRecord, {"entity": "urn:e", "schema": "urn:s"}),
    ],
)
def test_a_newer_server_does_not_break_us(cls, least):
    """Unknown fields and statuses are kept; optional fields may be missing or null; a bare id becomes a URN."""
    record = cls.model_validate({"id": "1", **least, "status": "hibernating", "brand-new": {"a": 1}})
    assert record.status == "hibernating"
    assert record.model_extra["brand-new"] == {"a": 1}
    assert record.urn.startswith("urn:ivcap:")
    optional = [
        f.validation_alias or f.alias for n, f in cls.model_fields.items() if not f.is_required() and n != "status"
    ]
    nulls = {alias: None for alias in optional if isinstance(alias, str)}
    assert cls.model_validate({"id": "1", **least, **nulls}).urn == record.urn
    if hasattr(record, "handle"):
        assert record.handle("p").urn == record.urn


def test_a_record_without_an_id_is_refused():
    """What cannot be named is no record."""
    with pytest.raises(ValidationError):
        OrderRecord.model_validate({"status": "pending"})


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
def test_times_have_an_offset(text, expected):
    """Nanoseconds are cut, a missing offset is UTC, an empty text is no time."""
    found = ArtifactRecord.model_validate({"id": "1", "created-at": text}).created_at
    assert (found.isoformat() if found else None) == expected


def test_an_unknown_size_is_none_in_a_handle():
    """-1 stands for unknown on the wire."""
    assert ArtifactRecord.model_validate({"id": "1", "size": -1}).handle("p").size is None


def test_parameter_values_are_text_in_a_handle():
    """A server that keeps numbers does not break a handle."""
    parameters = [{"name": "a", "value": 5}, {"name": "b", "value": True}, {"name": "c"}]
    assert OrderRecord.model_validate({"id": "1", "parameters": parameters}).values() == {"a": "5", "b": "true"}


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/vnd.ivcap.urn:sd:schema:x.1", True),
        ("text/plain", False),
        ("application/octet-stream", False),
        (None, False),
    ],
)
def test_which_results_are_json(media_type, expected):
    """Results with a schema have a type of their own and are JSON."""
    assert is_json_type(media_type) is expected
