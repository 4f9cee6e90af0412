"""The result of a verification: one finding for each thing on record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["WRONG", "Finding", "State", "is_wrong"]

State = Literal["ok", "elsewhere", "unchecked", "missing", "altered", "unreachable", "unknown"]
"""The state of a thing.

`ok`: read again, and unchanged. `elsewhere`: not at its place, but its content was read at another one. `unchecked`:
there, but the record does not say what it was. `missing`: gone. `altered`: changed. `unreachable`: cannot be read now.
`unknown`: no run on record had it.
"""

WRONG: Final[tuple[State, ...]] = ("altered", "missing", "unreachable", "unknown")


@dataclass(frozen=True)
class Finding:
    """The state of one thing. `sha256` is that of the content that was compared, if there is one."""

    type: str
    id: str
    state: State
    name: str | None = None
    note: str | None = None
    sha256: str | None = None


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether a thing is changed or unknown, or could not be verified."""
    return any(finding.state in WRONG for finding in findings)
