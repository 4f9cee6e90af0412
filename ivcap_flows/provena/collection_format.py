"""What is stated about a dataset when it is minted (source: provena/provena, data-store-api, `CollectionFormat`).

The data store refuses unknown keys and empty texts anywhere in this tree.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from pydantic import Field

from ivcap_flows.provena.wire import Wire, blank, not_http

__all__ = [
    "AccessInfo",
    "Approval",
    "Approvals",
    "CollectionAssociations",
    "CollectionFormat",
    "DatasetDescription",
    "RelevantDate",
]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


class Approval(Wire):
    """Whether a kind of approval is relevant to the data and, if so, obtained; one without the other is refused."""

    relevant: bool = False
    obtained: bool = False

    def faults(self) -> list[str]:
        if self.relevant == self.obtained:
            return []
        return ["relevant without obtained" if self.relevant else "obtained without relevant"]


class Approvals(Wire):
    """The four statements that the data store demands; the default is *not relevant*."""

    ethics_registration: Approval = Field(default_factory=Approval)
    ethics_access: Approval = Field(default_factory=Approval)
    indigenous_knowledge: Approval = Field(default_factory=Approval)
    export_controls: Approval = Field(default_factory=Approval)


class CollectionAssociations(Wire):
    """Whose data it is: `organisation_id` is a complete ORGANISATION, `data_custodian_id` a complete PERSON."""

    organisation_id: str
    data_custodian_id: str | None = None
    point_of_contact: str | None = None

    def faults(self) -> list[str]:
        return blank(self, "organisation_id", "data_custodian_id", "point_of_contact")


class AccessInfo(Wire):
    """Where the data lie: in the data store (`reposited`), or elsewhere at `uri`, which then needs a description."""

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
    """A date that is stated (`relevant` with a `value`) or that does not apply."""

    relevant: bool
    value: date | None = None

    @classmethod
    def of(cls, value: date | None) -> RelevantDate:
        """The date, or *not relevant* for None."""
        return cls(relevant=value is not None, value=value)

    def faults(self) -> list[str]:
        if self.relevant == (self.value is not None):
            return []
        return ["value is missing" if self.relevant else "value must be absent where the date is not relevant"]


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
    spatial_info: dict[str, Any] | None = None
    temporal_info: dict[str, Any] | None = None

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
