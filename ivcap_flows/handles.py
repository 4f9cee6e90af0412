"""The values that tasks return: what a thing is called on its platform, and a few facts about it.

Handles are frozen, hold no client and no secret, and survive pickle and JSON (`model_dump_json`,
`model_validate_json`), so that they travel to other processes and to a later run. Lineage follows them: a task that
takes a handle used the thing, a task that returns one generated it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import core_schema

from ivcap_flows.identity import artifact_urns

__all__ = [
    "TERMINAL",
    "Artifact",
    "Aspect",
    "Collection",
    "Dataset",
    "DatasetFile",
    "Handle",
    "Job",
    "JobEvent",
    "LocalFile",
    "ModelRun",
    "ModelRuns",
    "Order",
    "Products",
    "Queue",
    "QueueMessage",
    "RegistryItem",
    "Service",
]

TERMINAL: Final = frozenset({"succeeded", "failed", "error"})
"""The terminal statuses of orders and jobs (IVCAP OpenAPI, `OrderStatusRT` and `JobStatusRT`)."""


class Handle(BaseModel):
    """Base of all handles. `urn` is the platform's own name, `platform` the id of the platform that gave it."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    urn: str
    platform: str

    def __str__(self) -> str:
        return self.urn


class LocalFile(BaseModel):
    """A file on this machine with the content it had: `path` (absolute), `sha256` (hex), `size` in bytes."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    path: str
    sha256: str
    size: int

    def __fspath__(self) -> str:
        return self.path


class Artifact(Handle):
    """An IVCAP artifact. `sha256` is known when this package sent or read its bytes; `size` is in bytes."""

    kind: Literal["artifact"] = "artifact"
    name: str | None = None
    media_type: str | None = None
    size: int | None = None
    sha256: str | None = None
    policy: str | None = None
    created_at: datetime | None = None


class Products(tuple[Artifact, ...]):
    """The product artifacts of an order or job, in the platform's order; a name or URN works as an index too."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, str):
            return super().__getitem__(index)
        for artifact in self:
            if index in (artifact.name, artifact.urn):
                return artifact
        known = ", ".join(artifact.name or artifact.urn for artifact in self) or "none"
        raise KeyError(f"no product {index!r}; there are: {known}")

    def __getnewargs__(self) -> tuple[tuple[Artifact, ...]]:
        return (tuple(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(tuple[Artifact, ...]))


class JobEvent(BaseModel):
    """Something that happened to a job: `type` and `data` as the platform or the service told it."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    """The id from which a broken stream of events goes on."""
    type: str
    schema_urn: str | None = None
    at: datetime | None = None
    data: Any = None


class _Work(Handle):
    """What orders and jobs share. Times are the platform's; `service` is the service's URN."""

    service: str
    service_name: str | None = None
    service_version: str | None = None
    """A digest of the service's definition when this was asked for; IVCAP numbers no versions."""
    status: str = "unknown"
    name: str | None = None
    account: str | None = None
    """The URN of the account that asked for it, where the platform tells."""
    requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    products: Products = Products()
    key: str | None = None
    """The key under which this package sent it; None where it was attached by URN."""

    @property
    def done(self) -> bool:
        """Whether the status is terminal; it says nothing about success."""
        return self.status in TERMINAL

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The artifact URNs among the parameters or in the request."""
        return ()


class Order(_Work):
    """An IVCAP order. `parameters` are the wire values: strings by name."""

    kind: Literal["order"] = "order"
    parameters: dict[str, str] = Field(default_factory=dict)
    collection: str | None = None
    """The URN of the collection that takes the products once the order has succeeded."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(artifact_urns(self.parameters))


class Job(_Work):
    """An IVCAP job: a request document and, when it has succeeded, its JSON `result`."""

    kind: Literal["job"] = "job"
    request: Any = None
    result: Any = None
    result_type: str | None = None
    error_message: str | None = None
    events: tuple[JobEvent, ...] = ()
    """What the service told while it ran, oldest first; known to who waited for the job."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(artifact_urns(self.request))


class Aspect(Handle):
    """An IVCAP aspect: a statement under `schema_urn` about `entity`."""

    kind: Literal["aspect"] = "aspect"
    entity: str
    schema_urn: str
    content: Any = None


class Service(Handle):
    """An IVCAP service, the plan of orders and jobs."""

    kind: Literal["service"] = "service"
    name: str | None = None
    description: str | None = None


class Collection(Handle):
    """An IVCAP collection: a named set of artifacts, or of whatever has a URN."""

    kind: Literal["collection"] = "collection"
    name: str | None = None
    description: str | None = None


class Queue(Handle):
    """An IVCAP queue of messages."""

    kind: Literal["queue"] = "queue"
    name: str | None = None
    description: str | None = None


class QueueMessage(BaseModel):
    """A message taken from a queue. `key` is the same in every delivery of one `enqueue`; None from other senders."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    content: Any = None
    schema_urn: str | None = None
    media_type: str | None = None
    key: str | None = None


class RegistryItem(Handle):
    """A Provena registry item; `urn` is its handle, such as `102.100.100/123456`, `subtype` as Provena spells it."""

    kind: Literal["registry-item"] = "registry-item"
    subtype: str
    display_name: str | None = None


class Dataset(RegistryItem):
    """A Provena dataset; `access_uri` is where an external (not reposited) one lies, for instance an artifact URN."""

    kind: Literal["dataset"] = "dataset"  # type: ignore[assignment]  # narrows the base's literal
    subtype: str = "DATASET"
    access_uri: str | None = None


class DatasetFile(Handle):
    """A file of a Provena dataset; `urn` is its S3 URI, `path` its name within the dataset, `size` in bytes.

    `sha256` is known when this package sent its bytes; another upload to the same path replaces the content.
    """

    kind: Literal["dataset-file"] = "dataset-file"
    dataset: str
    """The dataset's handle."""
    path: str
    size: int
    sha256: str | None = None
    modified_at: datetime | None = None


class ModelRun(Handle):
    """A lodged Provena model run; `urn` is its handle. `inputs` and `outputs` are dataset handles.

    `started_at` and `finished_at` are of the work, not of its registration.
    """

    kind: Literal["model-run"] = "model-run"
    session_id: str | None = None
    workflow_template: str
    display_name: str | None = None
    subject: str | None = None
    """The URN of what was registered: an order, a job or a flow's run."""
    description: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    inputs: tuple[str, ...] = ()
    input_templates: tuple[str, ...] = ()
    """The handle of the dataset template that each of `inputs` is for, in their order."""
    outputs: tuple[str, ...] = ()
    output_templates: tuple[str, ...] = ()
    """The handle of the dataset template that each of `outputs` is for, in their order."""
    study: str | None = None
    """The handle of the study that the run belongs to."""
    model_version: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    modeller: str | None = None
    """The handle of the person who answers for the run."""
    organisation: str | None = None
    """The handle of the organisation that asked for it."""
    key: str | None = None
    record_sha256: str | None = None
    """Of what was registered, where it was registered or looked up by its key."""


class ModelRuns(BaseModel):
    """What came of many registrations: the `runs` there are, and how many rows have none.

    `source` names the file, `sha256` is of its bytes; `wrong` rows were not sent, `failed` ones have a reason, and of
    `doubtful` ones nobody knows. `differing` counts the runs that were registered with another record under the row's
    key, and stay as they were.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    platform: str
    source: str
    sha256: str
    rows: int
    wrong: int = 0
    failed: int = 0
    doubtful: int = 0
    differing: int = 0
    runs: tuple[ModelRun, ...] = ()
