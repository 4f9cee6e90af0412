"""Prefect blocks: credentials for IVCAP and Provena, terms of datasets, and services and collections of IVCAP."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

_PLACES: Final = {
    "IvcapCollection": "ivcap_flows.tasks.collection_block",
    "IvcapCredentials": "ivcap_flows.blocks.ivcap_credentials",
    "IvcapOrder": "ivcap_flows.tasks.service_block",
    "IvcapService": "ivcap_flows.tasks.service_block",
    "ProvenaCredentials": "ivcap_flows.blocks.provena_credentials",
    "ProvenaTerms": "ivcap_flows.blocks.provena_terms",
}
"""Where each name is. Blocks that do work are made of tasks, and tasks need the credentials: so names are imported when
they are asked for."""

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
