"""The envelope of registry items, and replies of the registry and the data store (registry-api, data-store-api)."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import Field, model_validator

from ivcap_flows import handles
from ivcap_flows.provena.infos import DatasetInfo, Info, ModelRun, S3Location
from ivcap_flows.provena.wire import Wire

__all__ = [
    "Created",
    "HistoryEntry",
    "Item",
    "Minted",
    "NewVersion",
    "Seed",
    "VersioningInfo",
    "WorkflowLinks",
]

I_co = TypeVar("I_co", bound=Info, covariant=True)


class WorkflowLinks(Wire):
    """The sessions of the jobs that record an item's creation and version in the graph."""

    create_activity_workflow_id: str | None = None
    version_activity_workflow_id: str | None = None


class VersioningInfo(Wire):
    """An item's version, counted from 1, its reason, and the ids of the previous and next version."""

    previous_version: str | None = None
    version: int
    reason: str | None = None
    next_version: str | None = None


class HistoryEntry(Wire):
    """An earlier content of an item: who set it, when and why. `id` counts from 0."""

    id: int
    timestamp: int
    reason: str | None = None
    username: str | None = None
    item: dict[str, Any]


class Seed(Wire):
    """The envelope that all items have.

    An item with nothing but the envelope is a seed: an id that waits for its content. `item_category` is ACTIVITY,
    AGENT or ENTITY, `record_type` SEED_ITEM or COMPLETE_ITEM.
    """

    id: str
    owner_username: str | None = None
    created_timestamp: int | None = None
    updated_timestamp: int | None = None
    item_category: str | None = None
    item_subtype: str
    record_type: str | None = None


class Item(Seed, Generic[I_co]):
    """A complete registry item: the envelope, and in `info` the content of its subtype. `history` is newest first."""

    workflow_links: WorkflowLinks | None = None
    versioning_info: VersioningInfo | None = None
    history: list[HistoryEntry] = Field(default_factory=list)
    info: I_co

    @model_validator(mode="before")
    @classmethod
    def _gather_info(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "info" in value:
            return value
        envelope = {name: part for name, part in value.items() if name in cls.model_fields}
        return envelope | {"info": {name: part for name, part in value.items() if name not in envelope}}

    @property
    def display_name(self) -> str:
        return self.info.display_name

    def handle(self, platform: str) -> handles.RegistryItem | handles.ModelRun:
        """Return the handle of this item: `ModelRun` or `Dataset` for those two subtypes, else `RegistryItem`."""
        info = self.info
        if isinstance(info, ModelRun):
            return handles.ModelRun(urn=self.id, platform=platform, **info.record.of_handle())
        if isinstance(info, DatasetInfo):
            uri = info.access_info_uri or info.collection_format.dataset_info.access_info.uri
            return handles.Dataset(urn=self.id, platform=platform, display_name=info.display_name, access_uri=uri)
        return handles.RegistryItem(
            urn=self.id, platform=platform, subtype=self.item_subtype, display_name=info.display_name
        )


class NewVersion(Wire):
    """A new version of an item: its id, and the session of the job that records it in the graph."""

    id: str = Field(alias="new_version_id")
    session_id: str | None = Field(None, alias="version_job_session_id")


class Created(Wire, Generic[I_co]):
    """A created item, and the session of the job that records its creation in the graph (None for some subtypes)."""

    item: Item[I_co]
    session_id: str | None = None


class Minted(Wire):
    """A minted dataset: its handle, the location for its files, and the session of the job that records it."""

    handle: str
    s3_location: S3Location | None = None
    session_id: str | None = Field(None, alias="register_create_activity_session_id")
