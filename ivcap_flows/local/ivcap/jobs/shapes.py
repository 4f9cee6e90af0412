"""Schemas of jobs (IVCAP OpenAPI 0.48: JobStatusRT, JobListItem)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.artifacts.shapes import PRODUCTS
from ivcap_flows.local.ivcap.shapes import LINKS, TEXT, TIME, URI, URN, WHOLE, Body, listed, record

__all__ = ["ACCEPTED", "LIST", "RECORD", "STATUS", "STREAM"]

STATUS: Final = {"enum": ["unknown", "pending", "scheduled", "executing", "succeeded", "failed", "error"]}

ACCEPTED: Final = Body(record({"location": URI, "retry-later": WHOLE}, {"job-id": URN, "service-id": URN}))
STREAM: Final = Body(record({"id": TEXT, "data": TEXT}), ("text/event-stream",))
RECORD: Final = Body(
    record(
        {
            "id": URN,
            "status": STATUS,
            "order": URN,
            "service": URN,
            "account": URN,
            "policy": URN,
            "request-content-type": TEXT,
            "requested-at": TIME,
            "links": LINKS,
        },
        {
            "name": TEXT,
            "started-at": TIME,
            "finished-at": TIME,
            "error-message": TEXT,
            "request-content": {},
            "result-content": {},
            "result-content-type": TEXT,
            "result-content-urn": URN,
            "products": PRODUCTS,
        },
    )
)
LIST: Final = listed(
    record(
        {"id": URN, "status": STATUS, "service": URN, "href": URI},
        {"name": TEXT, "order": URN, "started-at": TIME, "finished-at": TIME},
    )
)
