"""The types of registry items: their routes, their content, and the rules for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ivcap_flows.local.provena.datastore.format import CollectionFormat, Release, S3Location, broken_rule
from ivcap_flows.local.provena.model import Email, HttpUrl, Model, RootError, Texts, Whole
from ivcap_flows.local.provena.prov.record import Record

__all__ = ["KINDS", "AnySubtype", "Find", "Info", "Kind"]

Find = Callable[[str, str], dict[str, Any] | None]
"""`find(subtype, id)` returns a complete item, or None."""

AnySubtype = Literal[
    "WORKFLOW_RUN",
    "MODEL_RUN",
    "STUDY",
    "CREATE",
    "VERSION",
    "PERSON",
    "ORGANISATION",
    "SOFTWARE",
    "MODEL",
    "WORKFLOW_TEMPLATE",
    "MODEL_RUN_WORKFLOW_TEMPLATE",
    "DATASET",
    "DATASET_TEMPLATE",
]


class Info(Model):
    """The content of an item, in the form of its kind."""

    display_name: str
    user_metadata: Texts | None = None


@dataclass(frozen=True)
class Kind:
    """A type of item.

    `direct`: users write it in the registry itself. `versioned`: it has versions, and a chain of jobs records its
    creation. `by_person`: only users who are linked to a person may write it.
    """

    subtype: str
    category: str
    path: str
    info: type[Info]
    direct: bool = True
    versioned: bool = False
    by_person: bool = True
    broken: Callable[[dict[str, Any], Find], str | None] = lambda info, find: None

    @property
    def prefix(self) -> str:
        """The path of the type's routes."""
        return f"/registry/{self.category.lower()}/{self.path}"

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that exist for such an item."""
        data = ("dataset-data-read", "dataset-data-write") if self.subtype == "DATASET" else ()
        return ("metadata-read", "metadata-write", "admin", *data)

    @property
    def writers(self) -> frozenset[str]:
        """The roles that allow changing the content; one of them is enough."""
        return frozenset({"metadata-write", "admin"} | ({"dataset-data-write"} if self.subtype == "DATASET" else set()))

    @property
    def general(self) -> list[str]:
        """The roles that everybody has on a new item."""
        return ["metadata-read", "dataset-data-read"] if self.subtype == "DATASET" else ["metadata-read"]


class _Organisation(Info):
    name: str
    ror: HttpUrl | None = None


class _Person(Info):
    email: Email
    first_name: str
    last_name: str
    orcid: HttpUrl | None = None
    ethics_approved: bool = False


class _Model(Info):
    name: str
    description: str
    documentation_url: HttpUrl
    source_url: HttpUrl


def _repeated(words: list[str]) -> str:
    return ", ".join(sorted({word for word in words if words.count(word) > 1}))


class _Template(Model):
    template_id: str
    optional: bool | None = None


def _listed_once(templates: list[_Template]) -> list[_Template]:
    if twice := _repeated([template.template_id for template in templates]):
        raise ValueError(f"Templates are listed twice: {twice}.")
    return templates


_Templates = Annotated[list[_Template], AfterValidator(_listed_once)]


class _Annotations(Model):
    required: list[str] = Field(default_factory=list)
    optional: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_of_each(self) -> _Annotations:
        if twice := _repeated([*self.required, *self.optional]):
            raise RootError(f"Annotations are listed twice: {twice}.")
        return self


class _Workflow(Info):
    software_id: str
    input_templates: _Templates = Field(default_factory=list)
    output_templates: _Templates = Field(default_factory=list)
    annotations: _Annotations | None = None


class _Resource(Model):
    description: str
    usage_type: Literal["PARAMETER_FILE", "CONFIG_FILE", "FORCING_DATA", "GENERAL_DATA"]
    optional: bool | None = None
    is_folder: bool | None = None
    additional_metadata: Texts | None = None


class _Located(Model):
    path: str


class _Keyed(Model):
    key: str


class _DefinedResource(_Resource, _Located):
    """A file that every dataset has, at its path."""


class _DeferredResource(_Resource, _Keyed):
    """A file that each dataset names by a key."""


class _DatasetTemplate(Info):
    description: str | None = None
    defined_resources: list[_DefinedResource] = Field(default_factory=list)
    deferred_resources: list[_DeferredResource] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_key_each(self) -> _DatasetTemplate:
        if twice := _repeated([resource.key for resource in self.deferred_resources]):
            raise RootError(f"Deferred resources have the same key: {twice}.")
        return self


class _Dataset(Info):
    collection_format: CollectionFormat
    s3: S3Location
    release_history: list[Release] = Field(default_factory=list)
    release_status: Literal["NOT_RELEASED", "PENDING", "RELEASED"]
    release_approver: str | None = None
    release_timestamp: Whole | None = None
    access_info_uri: str | None = None


class _Study(Info):
    title: str
    description: str
    study_alternative_id: str | None = None


class _ModelRun(Info):
    record_status: Literal["INCOMPLETE", "COMPLETE", "LODGED"]
    record: Record
    prov_serialisation: str


class _Create(Info):
    created_item_id: str


class _Version(Info):
    reason: str
    from_item_id: str
    to_item_id: str
    new_version_number: Whole


def _unapproved(info: dict[str, Any], find: Find) -> str | None:
    return None if info["ethics_approved"] else "The person's consent (ethics_approved) is needed."


def _dangling(info: dict[str, Any], find: Find) -> str | None:
    if find("MODEL", info["software_id"]) is None:
        return f"{info['software_id']!r} is not the id of a complete MODEL."
    for template in (*info["input_templates"], *info["output_templates"]):
        if find("DATASET_TEMPLATE", template["template_id"]) is None:
            return f"{template['template_id']!r} is not the id of a complete DATASET_TEMPLATE."
    return None


KINDS: dict[str, Kind] = {
    kind.subtype: kind
    for kind in (
        Kind("ORGANISATION", "AGENT", "organisation", _Organisation, by_person=False),
        Kind("PERSON", "AGENT", "person", _Person, by_person=False, broken=_unapproved),
        Kind("MODEL", "ENTITY", "model", _Model, versioned=True),
        Kind(
            "MODEL_RUN_WORKFLOW_TEMPLATE", "ENTITY", "model_run_workflow", _Workflow, versioned=True, broken=_dangling
        ),
        Kind("DATASET_TEMPLATE", "ENTITY", "dataset_template", _DatasetTemplate, versioned=True),
        Kind(
            "DATASET",
            "ENTITY",
            "dataset",
            _Dataset,
            direct=False,
            versioned=True,
            broken=lambda info, find: broken_rule(info["collection_format"], find),
        ),
        Kind("STUDY", "ACTIVITY", "study", _Study),
        Kind("MODEL_RUN", "ACTIVITY", "model_run", _ModelRun, direct=False),
        Kind("CREATE", "ACTIVITY", "create", _Create, direct=False),
        Kind("VERSION", "ACTIVITY", "version", _Version, direct=False),
    )
}
"""Subtype -> kind."""
