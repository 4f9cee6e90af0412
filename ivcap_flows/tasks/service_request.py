"""The parameters of a service as a class, which an editor completes and mypy checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from typing_extensions import Self

from ivcap_flows.canonical import is_path, upload_first
from ivcap_flows.errors import ParameterError

__all__ = ["ServiceRequest"]


class ServiceRequest(BaseModel):
    """Base of the classes that `ivcap-flows services NAME --python` writes: an order's service with its parameters.

    `service` is the name of the service. `names` has the names of parameters that are no names of Python, by those of
    their fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: ClassVar[str]
    names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _say_how_a_file_is_given(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            paths = {each["loc"][0]: each["input"] for each in error.errors() if each["loc"] and is_path(each["input"])}
            if not paths:
                raise
            faults = [f"{name!r} is a path on this machine. {upload_first(path)}" for name, path in paths.items()]
            raise ParameterError(
                f"The service {cls.service!r} does not take these parameters. {' '.join(faults)}",
                service=cls.service,
                faults=faults,
            ) from error

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that were given. The service's own defaults stand for the others."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {self.names.get(name, name): value for name, value in given.items()}
