"""Schemas of aspects (IVCAP OpenAPI 0.48: AspectRT, AspectListItemRT)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.shapes import LINKS, TEXT, TIME, URN, Body, listed, record

__all__ = ["LIST", "RECORD"]

_COMMON: Final = {"id": URN, "entity": TEXT, "schema": TEXT, "content-type": TEXT, "valid-from": TIME}

RECORD: Final = Body(
    record(
        {**_COMMON, "content": {}, "asserter": TEXT, "account": URN, "policy": URN, "links": LINKS},
        {"valid-to": TIME, "retracter": TEXT, "replaces": URN},
    )
)
LIST: Final = listed(
    record(_COMMON, {"valid-to": TIME, "content": {}}),
    optional={"entity": TEXT, "schema": TEXT, "aspect-path": TEXT},
)
