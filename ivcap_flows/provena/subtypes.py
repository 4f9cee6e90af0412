"""The subtypes of the registry: the class of each, its routes, and which API writes it (registry-api)."""

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

__all__ = ["CREATABLE", "SUBTYPES", "VERSIONED", "kind_of", "route", "written_here"]

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
"""Provena's subtype names and what such an item states."""

CREATABLE: Final[frozenset[type[Info]]] = frozenset(
    {Person, Organisation, Model, DatasetTemplate, WorkflowTemplate, Study}
)
"""Written by the registry. Datasets are the data store's, model runs the prov API's, the rest is made by jobs."""

VERSIONED: Final[frozenset[type[Info]]] = frozenset({Model, DatasetTemplate, WorkflowTemplate})
"""Of these the registry makes new versions; of datasets the data store does."""


def kind_of(subtype: type[Info] | str) -> type[Info]:
    """The class of a subtype that is given as that class or by Provena's name. InputError for any other."""
    kind = SUBTYPES.get(subtype) if isinstance(subtype, str) else subtype
    if kind not in _ROUTES:
        raise InputError(f"Provena's registry has no subtype {subtype!r}; it has {', '.join(SUBTYPES)}.")
    return kind


def route(kind: type[Info]) -> str:
    """What the paths of a subtype begin with."""
    return _ROUTES[kind]


def written_here(subtype: type[Info] | str, info: Info | None = None) -> type[Info]:
    """The class of a subtype that the registry writes, and that `info` is of. InputError for any other."""
    kind = kind_of(subtype)
    if kind not in CREATABLE:
        raise InputError(f"The registry does not write a {kind.subtype}; it is made and changed by another API.")
    if info is not None and not isinstance(info, kind):
        raise InputError(f"A {kind.subtype} is described by {kind.__name__}, not by {type(info).__name__}.")
    return kind
