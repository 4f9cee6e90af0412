"""What a task was given as a document, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ivcap_flows.handles import Handle

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """JSON of a value: handles as their URNs, models by alias; what has no JSON form is left as it is."""
    if isinstance(value, Handle):
        return value.urn
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value
