"""Facts about a crate that only the user can state."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Author", "CrateTerms", "Institution"]


class Author(BaseModel):
    """The person responsible for the crate; `id` is a URL such as an ORCID."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    id: str | None = None


class Institution(BaseModel):
    """An organisation and its web address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    url: str


class CrateTerms(BaseModel):
    """Facts about a crate that only the user can state. What is missing is marked so: no licence is invented."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    license: str | None = None
    author: Author | None = None
    organisation: Institution | None = None
