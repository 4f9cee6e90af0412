"""The metadata of a dataset when it is minted (source: provena/provena, data-store-api, `CollectionFormat`).

The data store refuses unknown keys and empty texts anywhere in this tree.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from pydantic import Field

from ivcap_flows.provena.wire import Wire, blank, not_http

__all__ = [
    "AccessInfo",
    "Approval",
    "Approvals",
    "CollectionAssociations",
    "CollectionFormat",
    "DatasetDescription",
    "Duration",
    "RelevantDate",
    "SpatialInfo",
    "TemporalInfo",
]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_EWKT = re.compile(r"SRID=\d+;\S.*", re.DOTALL)
_LONGEST_EWKT: Final = 50_000
_PERIOD = re.compile(r"P(?=.)(\d+([.,]\d+)?[YMWD])*(T(\d+([.,]\d+)?[HMS])+)?")


class Approval(Wire):
    """Whether a kind of approval is relevant to the data and, if so, obtained. One without the other is refused."""

    relevant: bool = False
    obtained: bool = False

    def faults(self) -> list[str]:
        if self.relevant == self.obtained:
            return []
        return ["relevant without obtained" if self.relevant else "obtained without relevant"]


class Approvals(Wire):
    """The four statements that the data store requires; the default is *not relevant*."""

    ethics_registration: Approval = Field(default_factory=Approval)
    ethics_access: Approval = Field(default_factory=Approval)
    indigenous_knowledge: Approval = Field(default_factory=Approval)
    export_controls: Approval = Field(default_factory=Approval)


class CollectionAssociations(Wire):
    """The owners of the data: `organisation_id` is a complete ORGANISATION, `data_custodian_id` a complete PERSON."""

    organisation_id: str
    data_custodian_id: str | None = None
    point_of_contact: str | None = None

    def faults(self) -> list[str]:
        return blank(self, "organisation_id", "data_custodian_id", "point_of_contact")


class AccessInfo(Wire):
    """The place of the data: the data store (`reposited`), or elsewhere at `uri`, which then needs a description."""

    reposited: bool = True
    uri: str | None = None
    description: str | None = None

    def faults(self) -> list[str]:
        if self.reposited:
            given = [name for name in ("uri", "description") if getattr(self, name) is not None]
            return [f"{name} must be absent for a reposited dataset" for name in given]
        missing = [name for name in ("uri", "description") if not (getattr(self, name) or "").strip()]
        found = [f"{name} is missing for an external dataset" for name in missing]
        if self.uri and not _URI.fullmatch(self.uri):
            found.append(f"uri is no URI with a scheme ({self.uri!r})")
        return found


class RelevantDate(Wire):
    """A date that is given (`relevant` with a `value`) or that does not apply."""

    relevant: bool
    value: date | None = None

    @classmethod
    def of(cls, value: date | None) -> RelevantDate:
        """Return the date, or *not relevant* for None."""
        return cls(relevant=value is not None, value=value)

    def faults(self) -> list[str]:
        if self.relevant == (self.value is not None):
            return []
        return ["value is missing" if self.relevant else "value must be absent where the date is not relevant"]


class SpatialInfo(Wire):
    """The area of the data: `coverage` and `extent` in EWKT (`SRID=4326;POLYGON (…)`), `resolution` in degrees."""

    coverage: str | None = None
    extent: str | None = None
    resolution: str | None = None

    def faults(self) -> list[str]:
        found = []
        for name in ("coverage", "extent"):
            if (text := getattr(self, name)) is None:
                continue
            if not _EWKT.fullmatch(text):
                found.append(f"{name} is no EWKT such as SRID=4326;POINT (0 0)")
            elif len(text) > _LONGEST_EWKT:
                found.append(f"{name} has {len(text):,} characters, and {_LONGEST_EWKT:,} are allowed")
        if self.resolution is not None and not _positive(self.resolution):
            found.append(f"resolution is no number above 0 ({self.resolution!r})")
        return found


class Duration(Wire):
    """The period that the data describe, both days included."""

    begin_date: date
    end_date: date

    def faults(self) -> list[str]:
        if self.end_date >= self.begin_date:
            return []
        return [f"end_date ({self.end_date}) is before begin_date ({self.begin_date})"]


class TemporalInfo(Wire):
    """The time that the data describe; `resolution` is an ISO 8601 duration such as `P1M`."""

    duration: Duration | None = None
    resolution: str | None = None

    def faults(self) -> list[str]:
        if self.resolution is None or _PERIOD.fullmatch(self.resolution):
            return []
        return [f"resolution is no ISO 8601 duration such as P1M ({self.resolution!r})"]


def _positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


class DatasetDescription(Wire):
    """The `dataset_info` of a collection format. `license` is a URL; `publisher_id` a complete ORGANISATION."""

    name: str
    description: str
    access_info: AccessInfo
    publisher_id: str
    created_date: RelevantDate
    published_date: RelevantDate
    license: str
    purpose: str | None = None
    rights_holder: str | None = None
    usage_limitations: str | None = None
    preferred_citation: str | None = None
    formats: list[str] | None = None
    keywords: list[str] | None = None
    user_metadata: dict[str, str] | None = None
    version: str | None = None
    spatial_info: SpatialInfo | None = None
    temporal_info: TemporalInfo | None = None

    def faults(self) -> list[str]:
        texts = ("name", "description", "publisher_id", "license", "purpose", "rights_holder")
        found = blank(self, *texts, "usage_limitations", "preferred_citation")
        found += not_http(self, "license")
        created, published = self.created_date.value, self.published_date.value
        if created and published and published < created:
            found.append(f"published_date ({published}) is before created_date ({created})")
        return found


class CollectionFormat(Wire):
    """The metadata of a dataset as minted."""

    associations: CollectionAssociations
    approvals: Approvals
    dataset_info: DatasetDescription
