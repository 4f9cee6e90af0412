"""Base class of all Provena bodies: fields to keep on reading, and checks before sending."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from ivcap_flows.errors import InputError
from ivcap_flows.plain_text import near_names

__all__ = ["LATEST_SECONDS", "Wire", "blank", "no_seconds", "not_http"]

LATEST_SECONDS: Final = 10**11
"""Upper limit for times in Unix seconds (year 5138); a current time in milliseconds is above it."""


class Wire(BaseModel):
    """A JSON object of Provena's APIs. Fields that a newer server adds are kept on reading.

    They are sent only if `body` is called with `unknown`. In what a user writes, an unknown field is a typing error.
    """

    # Validators are built at the first use, so that importing the tasks costs nothing for an unused platform.
    model_config = ConfigDict(extra="allow", defer_build=True)

    def faults(self) -> list[str]:
        """Return what the server would refuse about this object's own fields, as sentences without a full stop."""
        return []

    def body(self, *, unknown: bool = False) -> dict[str, Any]:
        """Return the JSON to send, without nulls. Raises InputError that lists every fault at once.

        With `unknown`, fields that this version does not know are allowed and sent: an update of an item that a newer
        server returned must not lose them.
        """
        found = list(_all_faults(self, "", unknown))
        if found:
            raise InputError(f"Provena would refuse this {type(self).__name__}: {'; '.join(found)}.", faults=found)
        return self.plain()

    def plain(self) -> dict[str, Any]:
        """Return the JSON as it is: without nulls, not checked."""
        return self.model_dump(mode="json", exclude_none=True)


def _all_faults(part: Any, place: str, unknown: bool) -> list[str]:
    if isinstance(part, list):
        return [fault for index, inner in enumerate(part) for fault in _all_faults(inner, f"{place}[{index}]", unknown)]
    if not isinstance(part, Wire):
        return []
    prefix = f"{place}." if place else ""
    found = [prefix + fault for fault in part.faults()]
    if not unknown:
        known = type(part).model_fields
        of = type(part).__name__
        found += [f"{prefix}{name} is no field of {of} ({near_names(name, known)})" for name in part.model_extra or ()]
    for name in type(part).model_fields:
        found += _all_faults(getattr(part, name), prefix + name, unknown)
    return found


def blank(part: Wire, *names: str) -> list[str]:
    """Return a fault for each of these texts that is empty."""
    return [f"{name} is empty" for name in names if (text := getattr(part, name)) is not None and not text.strip()]


def not_http(part: Wire, *names: str) -> list[str]:
    """Return a fault for each of these texts that is set and is not an http URL."""
    return [
        f"{name} is no http or https URL ({text!r})"
        for name in names
        if (text := getattr(part, name)) is not None and not text.startswith(("http://", "https://"))
    ]


def no_seconds(part: Wire, *names: str) -> list[str]:
    """Return a fault for each of these times that cannot be Unix seconds. The server accepts milliseconds silently."""
    return [
        f"{name} must be in Unix seconds, and {value} looks like milliseconds"
        if (value := getattr(part, name)) > LATEST_SECONDS
        else f"{name} must not be negative, and is {value}"
        for name in names
        if not 0 <= getattr(part, name) <= LATEST_SECONDS
    ]
