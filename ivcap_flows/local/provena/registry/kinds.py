"""The types of registry items: their routes, their content, and the rules for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ivcap_flows.local.provena.datastore.format import DATASET_INFO, broken_rule
from ivcap_flows.local.provena.prov.record import RECORD
from ivcap_flows.local.provena.shape import (
    EMAIL,
    FLAG,
    HTTP_URL,
    TEXT,
    TEXTS,
    WHOLE,
    Choice,
    Field,
    Many,
    Object,
    Ruled,
    given,
    maybe,
    needed,
)

__all__ = ["ANY_SUBTYPE", "KINDS", "Find", "Kind"]

Find = Callable[[str, str], dict[str, Any] | None]
"""`find(subtype, id)` returns a complete item, or None."""

ANY_SUBTYPE = Choice(
    *("WORKFLOW_RUN", "MODEL_RUN", "STUDY", "CREATE", "VERSION", "PERSON", "ORGANISATION", "SOFTWARE", "MODEL"),
    *("WORKFLOW_TEMPLATE", "MODEL_RUN_WORKFLOW_TEMPLATE", "DATASET", "DATASET_TEMPLATE"),
)


@dataclass(frozen=True)
class Kind:
    """A type of item.

    `direct`: users write it in the registry itself. `versioned`: it has versions, and a chain of jobs records its
    creation. `by_person`: only users who are linked to a person may write it.
    """

    subtype: str
    category: str
    path: str
    info: Object
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


def _info(fields: dict[str, Field], *rules: Callable[[dict[str, Any]], str | None]) -> Object:
    return Object({"display_name": needed(TEXT), "user_metadata": maybe(TEXTS)} | fields, rules=rules)


def _resource(name: str) -> Object:
    return Object(
        {
            name: needed(TEXT),
            "description": needed(TEXT),
            "usage_type": needed(Choice("PARAMETER_FILE", "CONFIG_FILE", "FORCING_DATA", "GENERAL_DATA")),
            "optional": maybe(FLAG),
            "is_folder": maybe(FLAG),
            "additional_metadata": maybe(TEXTS),
        }
    )


def _repeated(words: list[str]) -> list[str]:
    return sorted({word for word in words if words.count(word) > 1})


def _one_key_each(info: dict[str, Any]) -> str | None:
    twice = _repeated([resource["key"] for resource in info["deferred_resources"]])
    return f"Deferred resources have the same key: {', '.join(twice)}." if twice else None


def _one_template_each(templates: list[dict[str, Any]]) -> str | None:
    twice = _repeated([template["template_id"] for template in templates])
    return f"Templates are listed twice: {', '.join(twice)}." if twice else None


def _one_annotation_each(annotations: dict[str, Any]) -> str | None:
    twice = _repeated([*annotations["required"], *annotations["optional"]])
    return f"Annotations are listed twice: {', '.join(twice)}." if twice else None


def _unapproved(info: dict[str, Any], find: Find) -> str | None:
    return None if info["ethics_approved"] else "The person's consent (ethics_approved) is needed."


def _dangling(info: dict[str, Any], find: Find) -> str | None:
    if find("MODEL", info["software_id"]) is None:
        return f"{info['software_id']!r} is not the id of a complete MODEL."
    for template in (*info["input_templates"], *info["output_templates"]):
        if find("DATASET_TEMPLATE", template["template_id"]) is None:
            return f"{template['template_id']!r} is not the id of a complete DATASET_TEMPLATE."
    return None


_TEMPLATES = Ruled(Many(Object({"template_id": needed(TEXT), "optional": maybe(FLAG)})), _one_template_each)
_ANNOTATIONS = Object(
    {"required": given(Many(TEXT), []), "optional": given(Many(TEXT), [])}, rules=(_one_annotation_each,)
)

KINDS: dict[str, Kind] = {
    kind.subtype: kind
    for kind in (
        Kind(
            "ORGANISATION",
            "AGENT",
            "organisation",
            _info({"name": needed(TEXT), "ror": maybe(HTTP_URL)}),
            by_person=False,
        ),
        Kind(
            "PERSON",
            "AGENT",
            "person",
            _info(
                {
                    "email": needed(EMAIL),
                    "first_name": needed(TEXT),
                    "last_name": needed(TEXT),
                    "orcid": maybe(HTTP_URL),
                    "ethics_approved": given(FLAG, False),
                }
            ),
            by_person=False,
            broken=_unapproved,
        ),
        Kind(
            "MODEL",
            "ENTITY",
            "model",
            _info(
                {
                    "name": needed(TEXT),
                    "description": needed(TEXT),
                    "documentation_url": needed(HTTP_URL),
                    "source_url": needed(HTTP_URL),
                }
            ),
            versioned=True,
        ),
        Kind(
            "MODEL_RUN_WORKFLOW_TEMPLATE",
            "ENTITY",
            "model_run_workflow",
            _info(
                {
                    "software_id": needed(TEXT),
                    "input_templates": given(_TEMPLATES, []),
                    "output_templates": given(_TEMPLATES, []),
                    "annotations": maybe(_ANNOTATIONS),
                }
            ),
            versioned=True,
            broken=_dangling,
        ),
        Kind(
            "DATASET_TEMPLATE",
            "ENTITY",
            "dataset_template",
            _info(
                {
                    "description": maybe(TEXT),
                    "defined_resources": given(Many(_resource("path")), []),
                    "deferred_resources": given(Many(_resource("key")), []),
                },
                _one_key_each,
            ),
            versioned=True,
        ),
        Kind(
            "DATASET",
            "ENTITY",
            "dataset",
            _info(DATASET_INFO),
            direct=False,
            versioned=True,
            broken=lambda info, find: broken_rule(info["collection_format"], find),
        ),
        Kind(
            "STUDY",
            "ACTIVITY",
            "study",
            _info({"title": needed(TEXT), "description": needed(TEXT), "study_alternative_id": maybe(TEXT)}),
        ),
        Kind(
            "MODEL_RUN",
            "ACTIVITY",
            "model_run",
            _info(
                {
                    "record_status": needed(Choice("INCOMPLETE", "COMPLETE", "LODGED")),
                    "record": needed(RECORD),
                    "prov_serialisation": needed(TEXT),
                }
            ),
            direct=False,
        ),
        Kind("CREATE", "ACTIVITY", "create", _info({"created_item_id": needed(TEXT)}), direct=False),
        Kind(
            "VERSION",
            "ACTIVITY",
            "version",
            _info(
                {
                    "reason": needed(TEXT),
                    "from_item_id": needed(TEXT),
                    "to_item_id": needed(TEXT),
                    "new_version_number": needed(WHOLE),
                }
            ),
            direct=False,
        ),
    )
}
"""Subtype -> kind."""
