"""CollectionFormat, the metadata of a dataset: its shape, and the rules that a mint reports without a 422.

Source: the `CollectionFormat` tree of the package `provena-interfaces-v2`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ivcap_flows.local.provena.shape import (
    DATE,
    FLAG,
    HTTP_URL,
    URI,
    WHOLE,
    Choice,
    Field,
    Many,
    Mapped,
    Object,
    Ruled,
    Text,
    given,
    maybe,
    needed,
)

__all__ = ["COLLECTION_FORMAT", "DATASET_INFO", "broken_rule"]

_WORDS = Text(min_length=1)
_EWKT = Text(min_length=1, max_length=50000)
_APPROVALS = ("ethics_registration", "ethics_access", "indigenous_knowledge", "export_controls")
_DURATION = re.compile(
    r"[+-]?P(?=\w)(\d+([.,]\d+)?Y)?(\d+([.,]\d+)?M)?(\d+([.,]\d+)?W)?(\d+([.,]\d+)?D)?"
    r"(T(?=\d)(\d+([.,]\d+)?H)?(\d+([.,]\d+)?M)?(\d+([.,]\d+)?S)?)?"
)
_GEOMETRY = re.compile(
    r"SRID=\d+;\s*(POINT|LINESTRING|POLYGON|MULTIPOINT|MULTILINESTRING|MULTIPOLYGON|GEOMETRYCOLLECTION)"
    r"(\s+(Z|M|ZM))?\s*(\(.*\)|EMPTY)\s*",
    re.IGNORECASE | re.DOTALL,
)


def _positive(text: str) -> str | None:
    try:
        return None if float(text) > 0 else f"The spatial resolution {text!r} is not positive."
    except ValueError:
        return f"The spatial resolution {text!r} is no decimal number."


def _iso_duration(text: str) -> str | None:
    return None if _DURATION.fullmatch(text) else f"The temporal resolution {text!r} is no ISO 8601 duration."


def _in_order(duration: dict[str, Any]) -> str | None:
    return "The begin date is after the end date." if duration["begin_date"] > duration["end_date"] else None


def _access(info: dict[str, Any]) -> str | None:
    for name in ("uri", "description"):
        if info["reposited"] and info[name] is not None:
            return f"Reposited data cannot have an external {name}."
        if not info["reposited"] and info[name] is None:
            return f"Data that is not reposited needs the {name} of its external place."
    return None


def _dated(value: dict[str, Any]) -> str | None:
    if value["relevant"] and value["value"] is None:
        return "A relevant date needs a value."
    return "A date that is not relevant cannot have a value." if not value["relevant"] and value["value"] else None


def _closed(fields: dict[str, Field], *rules: Callable[[dict[str, Any]], str | None]) -> Object:
    return Object(fields, closed=True, rules=rules)


_CHECK = _closed({"relevant": given(FLAG, False), "obtained": given(FLAG, False)})
_DATED = _closed({"relevant": given(FLAG, False), "value": maybe(DATE)}, _dated)

COLLECTION_FORMAT = _closed(
    {
        "associations": needed(
            _closed(
                {
                    "organisation_id": needed(_WORDS),
                    "data_custodian_id": maybe(_WORDS),
                    "point_of_contact": maybe(_WORDS),
                }
            )
        ),
        "approvals": needed(_closed({name: needed(_CHECK) for name in _APPROVALS})),
        "dataset_info": needed(
            _closed(
                {
                    "name": needed(_WORDS),
                    "description": needed(_WORDS),
                    "access_info": needed(
                        _closed(
                            {"reposited": given(FLAG, True), "uri": maybe(URI), "description": maybe(_WORDS)}, _access
                        )
                    ),
                    "publisher_id": needed(_WORDS),
                    "created_date": needed(_DATED),
                    "published_date": needed(_DATED),
                    "license": needed(HTTP_URL),
                    "purpose": maybe(_WORDS),
                    "rights_holder": maybe(_WORDS),
                    "usage_limitations": maybe(_WORDS),
                    "preferred_citation": maybe(_WORDS),
                    "spatial_info": maybe(
                        _closed(
                            {
                                "coverage": maybe(_EWKT),
                                "resolution": maybe(Ruled(_WORDS, _positive)),
                                "extent": maybe(_EWKT),
                            }
                        )
                    ),
                    "temporal_info": maybe(
                        _closed(
                            {
                                "duration": maybe(
                                    _closed({"begin_date": needed(DATE), "end_date": needed(DATE)}, _in_order)
                                ),
                                "resolution": maybe(Ruled(_WORDS, _iso_duration)),
                            }
                        )
                    ),
                    "formats": maybe(Many(_WORDS)),
                    "keywords": maybe(Many(_WORDS)),
                    "user_metadata": maybe(Mapped(_WORDS)),
                    "version": maybe(_WORDS),
                }
            )
        ),
    }
)

_RELEASE = Object(
    {
        "action": needed(Choice("REQUEST", "APPROVE", "REJECT")),
        "timestamp": needed(WHOLE),
        "approver": needed(Text()),
        "requester": maybe(Text()),
        "notes": needed(Text()),
    }
)

DATASET_INFO: dict[str, Field] = {
    "collection_format": needed(COLLECTION_FORMAT),
    "s3": needed(Object({name: needed(Text()) for name in ("bucket_name", "path", "s3_uri")})),
    "release_history": given(Many(_RELEASE), []),
    "release_status": needed(Choice("NOT_RELEASED", "PENDING", "RELEASED")),
    "release_approver": maybe(Text()),
    "release_timestamp": maybe(WHOLE),
    "access_info_uri": maybe(Text()),
}
"""The fields of a DATASET item besides the name and metadata that every item has."""


def broken_rule(collection: dict[str, Any], find: Callable[[str, str], dict[str, Any] | None]) -> str | None:
    """Return the first rule that a well-formed CollectionFormat breaks, or None.

    `find(subtype, id)` returns a complete item.
    """
    info = collection["dataset_info"]
    for name, check in collection["approvals"].items():
        if check["relevant"] != check["obtained"]:
            return f"The approval {name} is {'relevant but not' if check['relevant'] else 'not relevant but'} obtained."
    created, published = info["created_date"]["value"], info["published_date"]["value"]
    if created and published and published < created:
        return f"The dataset was published ({published}) before it was created ({created})."
    for name in ("coverage", "extent"):
        text = (info["spatial_info"] or {}).get(name)
        if text is not None and not _GEOMETRY.fullmatch(text):
            return f"The spatial {name} is no EWKT text of the form SRID=<number>;<geometry>."
    people = collection["associations"]
    for subtype, item in (
        ("ORGANISATION", people["organisation_id"]),
        ("ORGANISATION", info["publisher_id"]),
        ("PERSON", people["data_custodian_id"]),
    ):
        if item is not None and find(subtype, item) is None:
            return f"{item!r} is not the id of a complete {subtype}."
    return None
