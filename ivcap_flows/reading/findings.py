"""What verifying something came to: one finding for each thing on record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["WRONG", "Finding", "State", "is_wrong"]

State = Literal["ok", "elsewhere", "unchecked", "missing", "altered", "unreachable"]
"""`ok`: read again, and as it was. `elsewhere`: not where it was, but its content was read at another place.
`unchecked`: there, and nothing on record says what it was. `missing`: gone. `altered`: another than it was.
`unreachable`: could not be read now."""

WRONG: Final[tuple[State, ...]] = ("altered", "missing", "unreachable")


@dataclass(frozen=True)
class Finding:
    """How one thing stands; `sha256` is of the content that was compared, where there is one."""

    type: str
    id: str
    state: State
    name: str | None = None
    note: str | None = None
    sha256: str | None = None


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether anything is not as it was, or could not be seen to be."""
    return any(finding.state in WRONG for finding in findings)
