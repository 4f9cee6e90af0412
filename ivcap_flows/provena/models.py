"""What the registry holds: the statements of each subtype, and the envelope around them (registry-api).

Times are integer Unix seconds, ids are strings (handles such as `102.100.100/123456`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field, model_validator

from ivcap_flows import handles
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.runs import Associations, JobRow, Lodged, ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.wire import Wire, blank, not_http

__all__ = [
    "Annotations",
    "Associations",
    "CollectionFormat",
    "Created",
    "Creation",
    "DatasetInfo",
    "DatasetTemplate",
    "Deferred",
    "Defined",
    "Info",
    "Item",
    "JobRow",
    "Lodged",
    "Minted",
    "Model",
    "ModelRun",
    "ModelRunRecord",
    "Organisation",
    "Person",
    "Study",
    "TemplateUse",
    "TemplatedDataset",
    "Version",
    "WorkflowTemplate",
]


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


class Info(Wire):
    """What every registry item states; `subtype` is Provena's name of the class."""

    subtype: ClassVar[str] = ""

    display_name: str
    user_metadata: dict[str, str] | None = None

    def faults(self) -> list[str]:
        return blank(self, "display_name")


class Person(Info):
    """A person. The registry takes one only with `ethics_approved`, which is the person's own consent."""

    subtype = "PERSON"

    email: str
    first_name: str
    last_name: str
    orcid: str | None = None
    ethics_approved: bool = False

    def faults(self) -> list[str]:
        found = super().faults() + blank(self, "first_name", "last_name") + not_http(self, "orcid")
        if "@" not in self.email:
            found.append("email is no e-mail address")
        if not self.ethics_approved:
            found.append("ethics_approved must be true, which needs the person's consent")
        return found


class Organisation(Info):
    """An organisation; `ror` is its URL in the Research Organization Registry."""

    subtype = "ORGANISATION"

    name: str
    ror: str | None = None

    def faults(self) -> list[str]:
        return super().faults() + blank(self, "name") + not_http(self, "ror")


class Model(Info):
    """A model: the software that a workflow template runs."""

    subtype = "MODEL"

    name: str
    description: str
    documentation_url: str
    source_url: str

    def faults(self) -> list[str]:
        return super().faults() + blank(self, "name", "description") + not_http(self, "documentation_url", "source_url")


class Defined(Wire):
    """A resource of a dataset template at a fixed path.

    `usage_type` is PARAMETER_FILE, CONFIG_FILE, FORCING_DATA or GENERAL_DATA.
    """

    path: str
    description: str
    usage_type: str = "GENERAL_DATA"
    optional: bool | None = None
    is_folder: bool | None = None
    additional_metadata: dict[str, str] | None = None


class Deferred(Wire):
    """A resource of a dataset template whose path each model run gives under `key`."""

    key: str
    description: str
    usage_type: str = "GENERAL_DATA"
    optional: bool | None = None
    is_folder: bool | None = None
    additional_metadata: dict[str, str] | None = None

    def faults(self) -> list[str]:
        return blank(self, "key")


class DatasetTemplate(Info):
    """The form that a dataset in one role of a workflow has."""

    subtype = "DATASET_TEMPLATE"

    description: str | None = None
    defined_resources: list[Defined] = Field(default_factory=list)
    deferred_resources: list[Deferred] = Field(default_factory=list)

    def faults(self) -> list[str]:
        repeated = _repeated([resource.key for resource in self.deferred_resources])
        return super().faults() + [f"deferred_resources repeats the key {key!r}" for key in repeated]


class TemplateUse(Wire):
    """A dataset template in a workflow template; an `optional` one may be left out by a model run."""

    template_id: str
    optional: bool | None = None


class Annotations(Wire):
    """The annotation keys that a model run must and may give."""

    required: list[str] = Field(default_factory=list)
    optional: list[str] = Field(default_factory=list)

    def faults(self) -> list[str]:
        return [f"required or optional repeats the key {key!r}" for key in _repeated(self.required + self.optional)]


class WorkflowTemplate(Info):
    """What a kind of model run consists of: the model (`software_id`), its inputs and outputs, its annotations."""

    subtype = "MODEL_RUN_WORKFLOW_TEMPLATE"

    software_id: str
    input_templates: list[TemplateUse] = Field(default_factory=list)
    output_templates: list[TemplateUse] = Field(default_factory=list)
    annotations: Annotations | None = None

    def faults(self) -> list[str]:
        found = super().faults() + blank(self, "software_id")
        for name in ("input_templates", "output_templates"):
            repeated = _repeated([use.template_id for use in getattr(self, name)])
            found += [f"{name} repeats the template {template!r}" for template in repeated]
        return found


class Study(Info):
    """A study that model runs belong to."""

    subtype = "STUDY"

    title: str
    description: str
    study_alternative_id: str | None = None

    def faults(self) -> list[str]:
        return super().faults() + blank(self, "title", "description")


class ModelRun(Info):
    """A registered model run (read only). `record_status`: INCOMPLETE, COMPLETE, LODGED; an update leaves COMPLETE."""

    subtype = "MODEL_RUN"

    record_status: str
    record: ModelRunRecord
    prov_serialisation: str | None = None


class DatasetInfo(Info):
    """A minted dataset (read only). `release_status` is NOT_RELEASED, PENDING or RELEASED."""

    subtype = "DATASET"

    collection_format: CollectionFormat
    s3: dict[str, Any] | None = None
    release_status: str | None = None
    access_info_uri: str | None = None


class Creation(Info):
    """The activity that made an item (read only)."""

    subtype = "CREATE"

    created_item_id: str


class Version(Info):
    """The activity that made a new version of an item (read only)."""

    subtype = "VERSION"

    reason: str
    from_item_id: str
    to_item_id: str
    new_version_number: int


I_co = TypeVar("I_co", bound=Info, covariant=True)


class Item(Wire, Generic[I_co]):
    """A registry item: the envelope that all have, and in `info` what its subtype states.

    `history` is newest first. A seed (`record_type` SEED_ITEM) is an id without content.
    """

    id: str
    owner_username: str | None = None
    created_timestamp: int | None = None
    updated_timestamp: int | None = None
    item_category: str | None = None
    item_subtype: str
    record_type: str | None = None
    workflow_links: dict[str, Any] | None = None
    versioning_info: dict[str, Any] | None = None
    history: list[dict[str, Any]] = Field(default_factory=list)
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
        """The handle for this item: `ModelRun` or `Dataset` for those two subtypes, else `RegistryItem`."""
        info = self.info
        if isinstance(info, ModelRun):
            return handles.ModelRun(
                urn=self.id,
                platform=platform,
                workflow_template=info.record.workflow_template_id,
                display_name=info.display_name,
                inputs=tuple(part.dataset_id for part in info.record.inputs),
                outputs=tuple(part.dataset_id for part in info.record.outputs),
            )
        if isinstance(info, DatasetInfo):
            uri = info.access_info_uri or info.collection_format.dataset_info.access_info.uri
            return handles.Dataset(urn=self.id, platform=platform, display_name=info.display_name, access_uri=uri)
        return handles.RegistryItem(
            urn=self.id, platform=platform, subtype=self.item_subtype, display_name=info.display_name
        )


class Created(Wire, Generic[I_co]):
    """A created item, and the session of the job that records its creation in the graph (None for some subtypes)."""

    item: Item[I_co]
    session_id: str | None = None


class Minted(Wire):
    """A minted dataset: its handle, where its files would lie, and the session of the job that records it."""

    handle: str
    s3_location: dict[str, Any] | None = None
    session_id: str | None = Field(None, alias="register_create_activity_session_id")
