"""ModelRunRecord: its model, and the rules that are checked before it is lodged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationInfo, field_validator

from ivcap_flows.local.provena.model import Model, RootError, Texts, Whole
from ivcap_flows.local.provena.web import invalid

__all__ = ["Fetch", "Record", "check"]


def _not_empty(text: str) -> str:
    if text:
        return text
    raise ValueError("The text must not be empty.")


_Name = Annotated[str, AfterValidator(_not_empty)]


class _Dataset(Model):
    dataset_template_id: str
    dataset_id: str
    dataset_type: Literal["DATA_STORE"]
    resources: Texts | None = None


class _Associations(Model):
    modeller_id: str
    requesting_organisation_id: str | None = None


class Record(Model):
    """A ModelRunRecord."""

    workflow_template_id: str
    model_version: str | None = None
    inputs: list[_Dataset]
    outputs: list[_Dataset]
    annotations: Texts | None = None
    display_name: _Name
    description: _Name
    study_id: str | None = None
    associations: _Associations
    start_time: Whole
    end_time: Whole

    @field_validator("end_time")
    @classmethod
    def _in_order(cls, end: int, others: ValidationInfo) -> int:
        if end < others.data.get("start_time", end):
            raise RootError("The start time is after the end time.", at_field=True)
        return end


Fetch = Callable[[str, str], dict[str, Any] | None]
"""`fetch(subtype, id)` returns a complete item, or None. Raises a 401 refusal if the caller may not read it."""


def check(record: dict[str, Any], fetch: Fetch) -> None:
    """Raise the 400 refusal of the first rule that a record breaks, in the order in which prov-api checks them."""

    def item(subtype: str, id: str, what: str) -> dict[str, Any]:  # noqa: A002 - the wire's own word
        found = fetch(subtype, id)
        if found is None:
            raise invalid(f"Validation failed for the entity {id}. The {what} is not a complete {subtype}.")
        return found

    if record["study_id"] is not None:
        item("STUDY", record["study_id"], "study")
    workflow = item("MODEL_RUN_WORKFLOW_TEMPLATE", record["workflow_template_id"], "workflow template")
    listed = [*workflow["input_templates"], *workflow["output_templates"]]
    templates = {
        part["template_id"]: item("DATASET_TEMPLATE", part["template_id"], "dataset template") for part in listed
    }
    for end in ("input", "output"):
        filled = {dataset["dataset_template_id"] for dataset in record[f"{end}s"]}
        for part in workflow[f"{end}_templates"]:
            if not part["optional"] and part["template_id"] not in filled:
                raise invalid(
                    f"Validation failed for the entity {workflow['id']}. "
                    f"The record has no {end} for the template {part['template_id']}."
                )
    for dataset in (*record["inputs"], *record["outputs"]):
        template = templates.get(dataset["dataset_template_id"])
        if template is None:
            raise invalid(f"The template {dataset['dataset_template_id']} is not one of the workflow template's.")
        item("DATASET", dataset["dataset_id"], "dataset")
        _check_resources(dataset, template)
    item("MODEL", workflow["software_id"], "model")
    item("PERSON", record["associations"]["modeller_id"], "modeller")
    if (organisation := record["associations"]["requesting_organisation_id"]) is not None:
        item("ORGANISATION", organisation, "requesting organisation")
    required = (workflow["annotations"] or {}).get("required", [])
    if missing := [key for key in required if key not in (record["annotations"] or {})]:
        raise invalid(
            f"Validation failed for the entity {workflow['id']}. "
            f"Required annotations are missing: {', '.join(missing)}."
        )


def _check_resources(dataset: dict[str, Any], template: dict[str, Any]) -> None:
    given = dataset["resources"] or {}
    known = {resource["key"]: resource for resource in template["deferred_resources"]}
    missing = [key for key, resource in known.items() if not resource["optional"] and key not in given]
    unknown = [key for key in given if key not in known]
    for keys, what in ((missing, "lacks the resources"), (unknown, "has resources that its template does not know")):
        if keys:
            raise invalid(
                f"Validation failed for the entity {dataset['dataset_id']}. Input dataset {what}: {', '.join(keys)}."
            )
