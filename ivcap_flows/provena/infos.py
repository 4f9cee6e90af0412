"""The content of registry items, one class for each subtype (source: provena/provena, registry-api).

Times are integer Unix seconds, ids are strings (handles such as `102.100.100/123456`).
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from pydantic import Field

from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.runs import ModelRunRecord
from ivcap_flows.provena.wire import Wire, blank, not_http

__all__ = [
    "Annotations",
    "Creation",
    "DatasetInfo",
    "DatasetTemplate",
    "Deferred",
    "Defined",
    "Info",
    "Model",
    "ModelRun",
    "Organisation",
    "Person",
    "ReleaseEvent",
    "S3Location",
    "Study",
    "TemplateUse",
    "Version",
    "WorkflowTemplate",
]


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


class Info(Wire):
    """The content that every registry item has. `subtype` is Provena's name of the class."""

    subtype: ClassVar[str] = ""

    display_name: str
    user_metadata: dict[str, str] | None = None

    def faults(self) -> list[str]:
        return blank(self, "display_name")


class Person(Info):
    """A person. The registry accepts one only with `ethics_approved`, which is the person's own consent."""

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
    """A resource of a dataset template. Each model run gives its path under `key`."""

    key: str
    description: str
    usage_type: str = "GENERAL_DATA"
    optional: bool | None = None
    is_folder: bool | None = None
    additional_metadata: dict[str, str] | None = None

    def faults(self) -> list[str]:
        return blank(self, "key")


class DatasetTemplate(Info):
    """The form of a dataset in one role of a workflow."""

    subtype = "DATASET_TEMPLATE"

    description: str | None = None
    defined_resources: list[Defined] = Field(default_factory=list)
    deferred_resources: list[Deferred] = Field(default_factory=list)

    def faults(self) -> list[str]:
        repeated = _repeated([resource.key for resource in self.deferred_resources])
        return super().faults() + [f"deferred_resources repeats the key {key!r}" for key in repeated]


class TemplateUse(Wire):
    """A dataset template in a workflow template. A model run may leave out an `optional` one."""

    template_id: str
    optional: bool | None = None

    def faults(self) -> list[str]:
        return blank(self, "template_id")


class Annotations(Wire):
    """The annotation keys that a model run must give (`required`) and may give (`optional`)."""

    required: list[str] = Field(default_factory=list)
    optional: list[str] = Field(default_factory=list)

    def faults(self) -> list[str]:
        return [f"required or optional repeats the key {key!r}" for key in _repeated(self.required + self.optional)]


class WorkflowTemplate(Info):
    """The parts of a kind of model run: the model (`software_id`), its inputs and outputs, its annotations."""

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
    """A registered model run (read only). `record_status`: INCOMPLETE, COMPLETE or LODGED; an update sets COMPLETE."""

    subtype = "MODEL_RUN"

    record_status: str
    record: ModelRunRecord
    prov_serialisation: str | None = None


class S3Location(Wire):
    """Where a dataset's files are stored: `path` in the bucket ends in a slash, `s3_uri` is `s3://<bucket>/<path>`."""

    bucket_name: str
    path: str
    s3_uri: str


class ReleaseEvent(Wire):
    """A step of a dataset's release: `action` is REQUEST, APPROVE or REJECT; approver and requester are PERSONs."""

    action: str
    timestamp: int
    approver: str
    requester: str | None = None
    notes: str | None = None


class DatasetInfo(Info):
    """A minted dataset (read only). `release_status` is NOT_RELEASED, PENDING or RELEASED.

    `release_timestamp` is the time of its last change; `access_info_uri` is where an external dataset is stored.
    """

    subtype = "DATASET"

    collection_format: CollectionFormat
    s3: S3Location | None = None
    release_status: str | None = None
    release_history: list[ReleaseEvent] = Field(default_factory=list)
    release_approver: str | None = None
    release_timestamp: int | None = None
    access_info_uri: str | None = None


class Creation(Info):
    """The activity that created an item (read only)."""

    subtype = "CREATE"

    created_item_id: str


class Version(Info):
    """The activity that created a new version of an item (read only)."""

    subtype = "VERSION"

    reason: str
    from_item_id: str
    to_item_id: str
    new_version_number: int
