"""Facts that only the user can state about an artifact before it becomes a Provena dataset.

They are owner, publisher, licence and approvals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from ivcap_flows import handles
from ivcap_flows.errors import InputError
from ivcap_flows.provena.collection_format import (
    AccessInfo,
    Approvals,
    CollectionAssociations,
    CollectionFormat,
    DatasetDescription,
    RelevantDate,
)
from ivcap_flows.provena.infos import Info, Organisation

__all__ = ["Terms", "collection_format", "missing_terms"]

_OWNERS: Final = ("organisation_id", "publisher_id")
_REQUIRED: Final = (*_OWNERS, "license", "approvals")


class Terms(BaseModel):
    """Statements for the datasets that are minted for artifacts.

    No value is made up: an error names a missing field when it is needed. `approvals` must be given even if none is
    relevant (`Approvals()`), since that is a statement too. An `owner` that Provena does not have yet is registered,
    once; it is the organisation and the publisher where no handle is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: Organisation | None = Field(None, description="The organisation that owns and publishes the data.")
    organisation_id: str | None = Field(None, description="Handle of the organisation that the data belong to.")
    publisher_id: str | None = Field(None, description="Handle of the organisation that publishes the data.")
    license: str | None = Field(None, description="URL of the licence.")
    approvals: Approvals | None = Field(None, description="Ethics, access, indigenous knowledge, export controls.")
    created_date: date | None = Field(None, description="When the data were made; default the artifact's own date.")
    published_date: date | None = Field(None, description="When the data were published; absent means not relevant.")
    description: str | None = Field(None, description="What the data are; default names the artifact.")
    access_description: str | None = Field(None, description="How the artifact is reached; default names IVCAP.")
    data_custodian_id: str | None = Field(None, description="Handle of the person who looks after the data.")
    point_of_contact: str | None = Field(None, description="Whom to ask about the data.")
    purpose: str | None = Field(None, description="What the data were made for.")
    rights_holder: str | None = Field(None, description="Who holds the rights.")
    usage_limitations: str | None = Field(None, description="Limits on use beyond the licence.")
    preferred_citation: str | None = Field(None, description="How to cite the data.")
    keywords: tuple[str, ...] = Field((), description="Words to find the data by.")

    async def registered(self, register: Callable[[Info], Awaitable[str]]) -> Terms:
        """Return the same with the handle of the owner, after `register` has registered it."""
        if self.owner is None:
            return self
        owner = await register(self.owner)
        handles = {name: getattr(self, name) or owner for name in _OWNERS}
        return self.model_copy(update={"owner": None, **handles})


def missing_terms(terms: Terms | None) -> list[str]:
    """Return the names of required fields that are not set."""
    if terms is None:
        return list(_REQUIRED)
    owned = _OWNERS if terms.owner is not None else ()
    return [name for name in _REQUIRED if not getattr(terms, name) and name not in owned]


def _taught(missing: Sequence[str]) -> str:
    """Return the names of missing fields as a user would write them: an `owner` is both organisation and publisher."""
    owner = ["`owner` (or `organisation_id` and `publisher_id`)"] if set(_OWNERS) <= set(missing) else []
    names = owner + [f"`{name}`" for name in missing if name not in _OWNERS or not owner]
    if "approvals" in missing:
        names[-1] += " ({} if none is relevant)"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def collection_format(
    artifact: handles.Artifact,
    terms: Terms | None,
    *,
    user_metadata: dict[str, str] | None = None,
) -> CollectionFormat:
    """Return the metadata of an external dataset stored where the artifact is stored (`access_info.uri` is its URN).

    Raises InputError with the names of the missing fields, also as `missing`.
    """
    missing = missing_terms(terms)
    if missing or terms is None:
        name = f" {artifact.name}" if artifact.name else ""
        raise InputError(
            f"No Provena dataset is minted for the artifact{name} ({artifact.urn}): its terms lack {_taught(missing)}. "
            "State them once as `terms`: in the workflow, in a YAML file (`--terms`), or in a block Provena Terms.",
            missing=missing,
        )
    made = terms.created_date or (artifact.created_at.date() if artifact.created_at else None)
    return CollectionFormat(
        associations=CollectionAssociations(
            organisation_id=terms.organisation_id or "",
            data_custodian_id=terms.data_custodian_id,
            point_of_contact=terms.point_of_contact,
        ),
        approvals=terms.approvals or Approvals(),
        dataset_info=DatasetDescription(
            name=artifact.name or artifact.urn,
            description=terms.description or f"The IVCAP artifact {artifact.urn}.",
            access_info=AccessInfo(
                reposited=False,
                uri=artifact.urn,
                description=terms.access_description or f"An artifact of the IVCAP platform {artifact.platform}.",
            ),
            publisher_id=terms.publisher_id or "",
            created_date=RelevantDate.of(made),
            published_date=RelevantDate.of(terms.published_date),
            license=terms.license or "",
            purpose=terms.purpose,
            rights_holder=terms.rights_holder,
            usage_limitations=terms.usage_limitations,
            preferred_citation=terms.preferred_citation,
            formats=[artifact.media_type] if artifact.media_type else None,
            keywords=list(terms.keywords) or None,
            user_metadata=user_metadata,
        ),
    )
