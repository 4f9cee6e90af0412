"""The subtypes of the registry: their classes, their routes, and the API that writes them (registry-api)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.errors import InputError
from ivcap_flows.provena.infos import (
    Creation,
    DatasetInfo,
    DatasetTemplate,
    Info,
    Model,
    ModelRun,
    Organisation,
    Person,
    Study,
    Version,
    WorkflowTemplate,
)

__all__ = ["CREATABLE", "SUBTYPES", "VERSIONED", "kind_of", "require_writable", "route"]

_ROUTES: Final[dict[type[Info], str]] = {
    Person: "/registry/agent/person",
    Organisation: "/registry/agent/organisation",
    Model: "/registry/entity/model",
    DatasetTemplate: "/registry/entity/dataset_template",
    WorkflowTemplate: "/registry/entity/model_run_workflow",
    DatasetInfo: "/registry/entity/dataset",
    Study: "/registry/activity/study",
    ModelRun: "/registry/activity/model_run",
    Creation: "/registry/activity/create",
    Version: "/registry/activity/version",
}

SUBTYPES: Final[dict[str, type[Info]]] = {info.subtype: info for info in _ROUTES}
"""Provena's subtype name -> class of the item's content."""

CREATABLE: Final[frozenset[type[Info]]] = frozenset(
    {Person, Organisation, Model, DatasetTemplate, WorkflowTemplate, Study}
)
"""Subtypes that the registry writes. The data store writes datasets, the prov API model runs, jobs the rest."""

VERSIONED: Final[frozenset[type[Info]]] = frozenset({Model, DatasetTemplate, WorkflowTemplate})
"""Subtypes of which the registry makes new versions; the data store makes those of datasets."""


def kind_of(subtype: type[Info] | str) -> type[Info]:
    """Return the class of a subtype, given as that class or by Provena's name. Raises InputError for any other."""
    kind = SUBTYPES.get(subtype) if isinstance(subtype, str) else subtype
    if kind not in _ROUTES:
        raise InputError(f"Provena's registry has no subtype {subtype!r}; it has {', '.join(SUBTYPES)}.")
    return kind


def route(kind: type[Info]) -> str:
    """Return the beginning of a subtype's paths."""
    return _ROUTES[kind]


def require_writable(subtype: type[Info] | str, info: Info) -> type[Info]:
    """Return the class of a subtype that the registry writes and `info` belongs to. Raises InputError otherwise."""
    kind = kind_of(subtype)
    if kind not in CREATABLE:
        raise InputError(f"The registry does not write {kind.subtype}; it is made and changed by another API.")
    if not isinstance(info, kind):
        raise InputError(f"{kind.subtype} is described by {kind.__name__}, not by {type(info).__name__}.")
    return kind
