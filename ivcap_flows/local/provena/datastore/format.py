"""CollectionFormat, the metadata of a dataset: its model, and the rules that a mint reports without a 422.

Source: the `CollectionFormat` tree of the package `provena-interfaces-v2`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ivcap_flows.local.provena.model import Closed, Date, HttpUrl, Mapping, Model, RootError, Uri, Whole, Words

__all__ = ["CollectionFormat", "Release", "S3Location", "broken_rule"]

_DURATION = re.compile(
    r"[+-]?P(?=\w)(\d+([.,]\d+)?Y)?(\d+([.,]\d+)?M)?(\d+([.,]\d+)?W)?(\d+([.,]\d+)?D)?"
    r"(T(?=\d)(\d+([.,]\d+)?H)?(\d+([.,]\d+)?M)?(\d+([.,]\d+)?S)?)?"
)
_GEOMETRY = re.compile(
    r"SRID=\d+;\s*(POINT|LINESTRING|POLYGON|MULTIPOINT|MULTILINESTRING|MULTIPOLYGON|GEOMETRYCOLLECTION)"
    r"(\s+(Z|M|ZM))?\s*(\(.*\)|EMPTY)\s*",
    re.IGNORECASE | re.DOTALL,
)


def _positive(text: str) -> str:
    try:
        positive = float(text) > 0
    except ValueError:
        raise ValueError(f"The spatial resolution {text!r} is no decimal number.") from None
    if positive:
        return text
    raise ValueError(f"The spatial resolution {text!r} is not positive.")


def _iso_duration(text: str) -> str:
    if _DURATION.fullmatch(text):
        return text
    raise ValueError(f"The temporal resolution {text!r} is no ISO 8601 duration.")


_Ewkt = Annotated[str, Field(min_length=1, max_length=50000)]


class _Associations(Closed):
    organisation_id: Words
    data_custodian_id: Words | None = None
    point_of_contact: Words | None = None


class _Approval(Closed):
    relevant: bool = False
    obtained: bool = False


class _Approvals(Closed):
    ethics_registration: _Approval
    ethics_access: _Approval
    indigenous_knowledge: _Approval
    export_controls: _Approval


class _AccessInfo(Closed):
    reposited: bool = True
    uri: Uri | None = None
    description: Words | None = None

    @model_validator(mode="after")
    def _one_place(self) -> _AccessInfo:
        for name, value in (("uri", self.uri), ("description", self.description)):
            if self.reposited and value is not None:
                raise RootError(f"Reposited data cannot have an external {name}.")
            if not self.reposited and value is None:
                raise RootError(f"Data that is not reposited needs the {name} of its external place.")
        return self


class _OptionalDate(Closed):
    relevant: bool = False
    value: Date | None = None

    @model_validator(mode="after")
    def _if_relevant(self) -> _OptionalDate:
        if self.relevant and self.value is None:
            raise RootError("A relevant date needs a value.")
        if not self.relevant and self.value is not None:
            raise RootError("A date that is not relevant cannot have a value.")
        return self


class _SpatialInfo(Closed):
    coverage: _Ewkt | None = None
    resolution: Annotated[Words, AfterValidator(_positive)] | None = None
    extent: _Ewkt | None = None


class _Duration(Closed):
    begin_date: Date
    end_date: Date

    @model_validator(mode="after")
    def _in_order(self) -> _Duration:
        if self.begin_date > self.end_date:
            raise RootError("The begin date is after the end date.")
        return self


class _TemporalInfo(Closed):
    duration: _Duration | None = None
    resolution: Annotated[Words, AfterValidator(_iso_duration)] | None = None


class _DatasetInfo(Closed):
    name: Words
    description: Words
    access_info: _AccessInfo
    publisher_id: Words
    created_date: _OptionalDate
    published_date: _OptionalDate
    license: HttpUrl
    purpose: Words | None = None
    rights_holder: Words | None = None
    usage_limitations: Words | None = None
    preferred_citation: Words | None = None
    spatial_info: _SpatialInfo | None = None
    temporal_info: _TemporalInfo | None = None
    formats: list[Words] | None = None
    keywords: list[Words] | None = None
    user_metadata: Mapping[Words] | None = None
    version: Words | None = None


class CollectionFormat(Closed):
    """The metadata of a dataset."""

    associations: _Associations
    approvals: _Approvals
    dataset_info: _DatasetInfo


class S3Location(Model):
    """Where the files of a dataset are."""

    bucket_name: str
    path: str
    s3_uri: str


class Release(Model):
    """An event in the history of a dataset's releases."""

    action: Literal["REQUEST", "APPROVE", "REJECT"]
    timestamp: Whole
    approver: str
    requester: str | None = None
    notes: str


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
