"""The base of all Provena bodies: what is kept on reading, and what is checked before sending."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from ivcap_flows.errors import InputError

__all__ = ["LATEST_SECONDS", "Wire", "blank", "no_seconds", "not_http"]

LATEST_SECONDS: Final = 10**11
"""No time in Unix seconds is later (year 5138); a current time in milliseconds is."""


class Wire(BaseModel):
    """A JSON object of Provena's APIs. Fields that a newer server adds are kept on reading.

    Sent are they only where `body` is told so: in what a user writes, a field that nobody knows is a slip of the pen.
    """

    # Validators are built at the first use: importing the tasks costs no time for a platform that is not used.
    model_config = ConfigDict(extra="allow", defer_build=True)

    def faults(self) -> list[str]:
        """What the server would refuse about this object's own fields, as sentences without an end."""
        return []

    def body(self, *, unknown: bool = False) -> dict[str, Any]:
        """The JSON to send, without nulls. Raises InputError that lists every fault at once.

        With `unknown`, fields that this version does not know are no fault and are sent: what replaces an item that a
        newer server gave must not lose them.
        """
        found = list(_all_faults(self, "", unknown))
        if found:
            raise InputError(f"Provena would refuse this {type(self).__name__}: {'; '.join(found)}.", faults=found)
        return self.plain()

    def plain(self) -> dict[str, Any]:
        """The JSON as it is: without nulls, not checked."""
        return self.model_dump(mode="json", exclude_none=True)


def _all_faults(part: Any, place: str, unknown: bool) -> list[str]:
    if isinstance(part, list):
        return [fault for index, inner in enumerate(part) for fault in _all_faults(inner, f"{place}[{index}]", unknown)]
    if not isinstance(part, Wire):
        return []
    prefix = f"{place}." if place else ""
    found = [prefix + fault for fault in part.faults()]
    if not unknown:
        found += [f"{prefix}{name} is no field of {type(part).__name__}" for name in part.model_extra or ()]
    for name in type(part).model_fields:
        found += _all_faults(getattr(part, name), prefix + name, unknown)
    return found


def blank(part: Wire, *names: str) -> list[str]:
    """A fault for each named text that is empty."""
    return [f"{name} is empty" for name in names if (text := getattr(part, name)) is not None and not text.strip()]


def not_http(part: Wire, *names: str) -> list[str]:
    """A fault for each named text that is set and no http URL."""
    return [
        f"{name} is no http or https URL ({text!r})"
        for name in names
        if (text := getattr(part, name)) is not None and not text.startswith(("http://", "https://"))
    ]


def no_seconds(part: Wire, *names: str) -> list[str]:
    """A fault for each named time that cannot be Unix seconds; the server itself takes milliseconds silently."""
    return [
        f"{name} must be in Unix seconds, and {value} looks like milliseconds"
        if (value := getattr(part, name)) > LATEST_SECONDS
        else f"{name} must not be negative, and is {value}"
        for name in names
        if not 0 <= getattr(part, name) <= LATEST_SECONDS
    ]
