"""What the platform hands to a service, and how a service reads its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ivcap_flows.local.services.job import ServiceError

__all__ = ["Job", "RequestError", "artifact", "number", "option"]


class RequestError(ServiceError, ValueError):
    """A request with a parameter that is missing or out of place."""


class Job(Protocol):
    """A job as its service sees it."""

    def read_artifact(self, urn: str) -> bytes: ...

    def add_product(self, name: str, data: bytes, media_type: str) -> object: ...

    def log(self, text: str) -> object: ...


def artifact(request: Mapping[str, Any], name: str) -> str:
    """The URN under a parameter that has no default."""
    urn = str(request.get(name) or "")
    if not urn:
        raise RequestError(f"the parameter {name} is missing; it should be the URN of an artifact")
    return urn


def number(request: Mapping[str, Any], name: str, default: float, *, least: float, most: float) -> float:
    """A number among the parameters; an order carries it as text, a job as a number."""
    given = request.get(name, default)
    try:
        value = float("nan") if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        value = float("nan")
    if not least <= value <= most:
        raise RequestError(f"{name} is {given!r}; it should be a number from {least:g} to {most:g}")
    return value


def option(request: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> str:
    """One of the options of a parameter that has no default."""
    given = request.get(name)
    if not isinstance(given, str) or given not in options:
        raise RequestError(f"{name} is {given!r}; it should be one of {', '.join(options)}")
    return given
