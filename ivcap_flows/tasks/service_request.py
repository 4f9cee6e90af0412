"""The parameters of a service as a class, which an editor completes and mypy checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["ServiceRequest"]


class ServiceRequest(BaseModel):
    """Base of the classes that `ivcap-flows services NAME --python` writes: an order's service with its parameters.

    `service` is the name of the service. `names` has the names of parameters that are no names of Python, by those of
    their fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: ClassVar[str]
    names: ClassVar[Mapping[str, str]] = {}

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that were given. The service's own defaults stand for the others."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {self.names.get(name, name): value for name, value in given.items()}
