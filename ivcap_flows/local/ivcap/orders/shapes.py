"""Schemas of orders (IVCAP OpenAPI 0.48: OrderStatusRT, OrderListItem, OrderRequestT)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.artifacts.shapes import PRODUCT, PRODUCTS
from ivcap_flows.local.ivcap.jobs.shapes import STATUS
from ivcap_flows.local.ivcap.shapes import LINKS, POLICY, TEXT, TEXTS, TIME, URI, URN, Body, listed, maybe, record

__all__ = ["LIST", "LOG", "METADATA", "PRODUCT_LIST", "RECORD", "REQUEST", "TOP"]

_PARAMETERS: Final = {"type": "array", "items": record({"name": TEXT, "value": TEXT})}
_TIMES: Final = {"ordered-at": TIME, "started-at": TIME, "finished-at": TIME}

REQUEST: Final = Body(
    record(
        {"service": TEXT, "parameters": _PARAMETERS},
        {"name": maybe(TEXT), "policy": maybe(POLICY), "tags": maybe(TEXTS)},
    )
)
RECORD: Final = Body(
    record(
        {
            "id": URN,
            "status": STATUS,
            "service": URN,
            "account": URN,
            "parameters": _PARAMETERS,
            "products": PRODUCTS,
            "links": LINKS,
        },
        {"name": TEXT, "tags": TEXTS, **_TIMES},
    )
)
LIST: Final = listed(
    record({"id": URN, "status": STATUS, "service": URN, "account": URN, "href": URI}, {"name": TEXT, **_TIMES})
)
PRODUCT_LIST: Final = listed(PRODUCT, at_time=False)
METADATA: Final = listed(record({"id": URN, "schema": TEXT, "href": URI, "content-type": TEXT}), at_time=False)
LOG: Final = Body(TEXT, ("text/plain",))
TOP: Final = Body(
    {
        "type": "array",
        "items": record(dict.fromkeys(("container", "cpu", "memory", "storage", "ephemeral-storage"), TEXT)),
    }
)
