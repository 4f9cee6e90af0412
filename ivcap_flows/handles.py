"""Handles: the values that tasks return. Each holds the name of a thing on its platform and a few facts about it.

Handles are frozen and hold no client and no secret. They survive pickle and JSON (`model_dump_json`,
`model_validate_json`), so another process or a later run can use them. Lineage follows them: a task that takes a
handle used the thing, and a task that returns one generated it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape
from typing import Any, Final, Literal, SupportsIndex, overload

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, PrivateAttr
from pydantic_core import core_schema

from ivcap_flows.identity import How, data_urns

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


_SHOWN: Final = (
    *("urn", "name", "display_name", "status", "how", "service_name", "subtype", "description"),
    *("media_type", "size", "created_at", "requested_at", "finished_at"),
)
"""What a notebook shows of a handle."""


class Handle(BaseModel):
    """The base of all handles. `urn` is the platform's name for the thing, `platform` the id of that platform."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    urn: str
    platform: str
    # No field: a handle is the same thing, with one digest, however a run came by it.
    _how: How | None = PrivateAttr(None)

    @property
    def how(self) -> How | None:
        """How the run came by the thing: the same in each of its attempts, and None if it did not ask for it.

        "sent": the run requested it; "kept": an earlier run of the journal had; "adopted": another journal had, and it
        was found on the platform; "reused": it is that of an earlier equal request; "planned": nothing was sent.
        """
        return self._how

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), self.urn, self.platform))

    def __str__(self) -> str:
        return self.urn

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What tells handles apart for people. `model_dump` has all."""
        for name in ("urn", "name", "display_name", "status"):
            if (value := getattr(self, name, None)) is not None:
                yield name, value

    def _repr_html_(self) -> str:
        """Return the handle as a table for a notebook: names, states, sizes and times, and nothing that was given."""
        rows = {name: getattr(self, name, None) for name in _SHOWN}
        told = {name: value for name, value in rows.items() if value is not None}
        if products := getattr(self, "products", ()):
            told["products"] = ", ".join(each.name or each.urn for each in products)
        cells = "".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in told.items())
        return f"<table><caption>{type(self).__name__}</caption>{cells}</table>"


class LocalFile(BaseModel):
    """A file on this machine and its content at one moment: absolute `path`, `sha256` in hex, `size` in bytes."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    path: str
    sha256: str
    size: int

    def __fspath__(self) -> str:
        return self.path


class Artifact(Handle):
    """An IVCAP artifact. `sha256` is known if this package sent or read the bytes; `size` is in bytes."""

    kind: Literal["artifact"] = "artifact"
    name: str | None = None
    media_type: str | None = None
    size: int | None = None
    sha256: str | None = None
    policy: str | None = None
    created_at: datetime | None = None


class Products(tuple[Artifact, ...]):
    """The product artifacts of an order or job, in the platform's order. The index is a number, a name or a URN."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex | str) -> Artifact: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Artifact, ...]: ...

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
    """An event of a job: `type` and `data` as the platform or the service reported them."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    """The id from which an interrupted event stream resumes."""
    type: str
    schema_urn: str | None = None
    at: datetime | None = None
    data: Any = None


class _Work(Handle):
    """The common fields of orders and jobs. Times are the platform's; `service` is the service's URN."""

    service: str
    service_name: str | None = None
    service_version: str | None = None
    """A digest of the service's definition at the time of the request. IVCAP has no version numbers."""
    status: str = "unknown"
    name: str | None = None
    account: str | None = None
    """The URN of the account that placed it, if the platform reports one."""
    requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error_message: str | None = None
    """Why it did not succeed: what the platform says of a job, else the last line of the log. A wait reads the log."""
    products: Products = Products()
    key: str | None = None
    """The idempotency key under which this package sent it; None if it was read by its URN."""

    @property
    def done(self) -> bool:
        """Whether the status is terminal. Terminal does not mean successful."""
        return self.status in TERMINAL

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The URNs of the artifacts and collections among the parameters or in the request."""
        return ()


class Order(_Work):
    """An IVCAP order. `parameters` are strings by name, as they were sent."""

    kind: Literal["order"] = "order"
    parameters: dict[str, str] = Field(default_factory=dict)
    collection: str | None = None
    """The URN of the collection that receives the products once the order has succeeded."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(data_urns(self.parameters))


class Job(_Work):
    """An IVCAP job: a JSON `request`, and a JSON `result` once it has succeeded."""

    kind: Literal["job"] = "job"
    request: Any = None
    result: Any = None
    result_type: str | None = None
    events: tuple[JobEvent, ...] = ()
    """The events that the service reported, oldest first. A wait reads them on request, and of a job that failed."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(data_urns(self.request))


class Aspect(Handle):
    """An IVCAP aspect: a statement under `schema_urn` about `entity`."""

    kind: Literal["aspect"] = "aspect"
    entity: str
    schema_urn: str
    content: Any = None


class Service(Handle):
    """An IVCAP service: the plan that orders and jobs follow."""

    kind: Literal["service"] = "service"
    name: str | None = None
    description: str | None = None


class Collection(Handle):
    """An IVCAP collection: a named set of artifacts, or of other things with a URN."""

    kind: Literal["collection"] = "collection"
    name: str | None = None
    description: str | None = None


class Queue(Handle):
    """An IVCAP queue of messages."""

    kind: Literal["queue"] = "queue"
    name: str | None = None
    description: str | None = None


class QueueMessage(BaseModel):
    """A message taken from a queue. All deliveries of one `enqueue` have the same `key`; None from other senders."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    content: Any = None
    schema_urn: str | None = None
    media_type: str | None = None
    key: str | None = None


class RegistryItem(Handle):
    """A Provena registry item. `urn` is its handle, such as `102.100.100/123456`; `subtype` is Provena's spelling."""

    kind: Literal["registry-item"] = "registry-item"
    subtype: str
    display_name: str | None = None


class Dataset(RegistryItem):
    """A Provena dataset. `access_uri` locates an external (not reposited) one; it may be the URN of an artifact."""

    kind: Literal["dataset"] = "dataset"  # type: ignore[assignment]  # narrows the base's literal
    subtype: str = "DATASET"
    access_uri: str | None = None


class DatasetFile(Handle):
    """A file of a Provena dataset. `urn` is its S3 URI, `path` its name within the dataset, `size` is in bytes.

    `sha256` is known if this package sent the bytes. Another upload to the same path replaces the content.
    """

    kind: Literal["dataset-file"] = "dataset-file"
    dataset: str
    """The dataset's handle."""
    path: str
    size: int
    sha256: str | None = None
    modified_at: datetime | None = None


class ModelRun(Handle):
    """A lodged Provena model run. `urn` is its handle; `inputs` and `outputs` are dataset handles.

    `started_at` and `finished_at` are the times of the work, not of its registration.
    """

    kind: Literal["model-run"] = "model-run"
    session_id: str | None = None
    workflow_template: str
    display_name: str | None = None
    subject: str | None = None
    """The URN of the work that was registered: an order, a job or a flow's run."""
    description: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    inputs: tuple[str, ...] = ()
    input_templates: tuple[str, ...] = ()
    """The handle of the dataset template for each of `inputs`, in the same order."""
    outputs: tuple[str, ...] = ()
    output_templates: tuple[str, ...] = ()
    """The handle of the dataset template for each of `outputs`, in the same order."""
    study: str | None = None
    """The handle of the study that the run belongs to."""
    model_version: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    modeller: str | None = None
    """The handle of the person who is responsible for the run."""
    organisation: str | None = None
    """The handle of the organisation that requested the run."""
    key: str | None = None
    record_sha256: str | None = None
    """The sha256 of the registered record; known if this package registered the run or looked it up by its key."""


class ModelRuns(BaseModel):
    """The result of registering many model runs: the `runs`, and counts of the rows that have none.

    `source` names the file, and `sha256` is the digest of its bytes. `wrong` counts invalid rows, which were not sent;
    `failed` counts rows that failed with a reason; `doubtful` counts rows whose outcome is unknown. `differing` counts
    runs that were registered earlier under the row's key with a different record; they stay unchanged.
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
