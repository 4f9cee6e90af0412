"""ModelRunRecord: its shape, and the rules that are checked before it is lodged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ivcap_flows.local.provena.shape import TEXT, TEXTS, WHOLE, Choice, Many, Object, Ruled, maybe, needed
from ivcap_flows.local.provena.web import invalid

__all__ = ["RECORD", "Fetch", "check"]


def _not_empty(text: str) -> str | None:
    return None if text else "The text must not be empty."


def _in_order(record: dict[str, Any]) -> str | None:
    start, end = record["start_time"], record["end_time"]
    return "The start time is after the end time." if start is not None and end is not None and start > end else None


_NAME = Ruled(TEXT, _not_empty)
_DATASET = Object(
    {
        "dataset_template_id": needed(TEXT),
        "dataset_id": needed(TEXT),
        "dataset_type": needed(Choice("DATA_STORE")),
        "resources": maybe(TEXTS),
    }
)

RECORD = Object(
    {
        "workflow_template_id": needed(TEXT),
        "model_version": maybe(TEXT),
        "inputs": needed(Many(_DATASET)),
        "outputs": needed(Many(_DATASET)),
        "annotations": maybe(TEXTS),
        "display_name": needed(_NAME),
        "description": needed(_NAME),
        "study_id": maybe(TEXT),
        "associations": needed(Object({"modeller_id": needed(TEXT), "requesting_organisation_id": maybe(TEXT)})),
        "start_time": needed(WHOLE),
        "end_time": needed(WHOLE),
    },
    early_rules=(_in_order,),
)

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
