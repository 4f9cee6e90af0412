"""What a call did with one file, folder or store, from what is known about it: one function, without side effects.

`tests/capture/test_file_rules.py` has its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "READ_OR_NOT",
    "WHO_WROTE",
    "WHO_WROTE_WHAT",
    "Basis",
    "Change",
    "Declaration",
    "Edges",
    "Facts",
    "Writer",
    "edges_of",
]

Change = Literal["new", "found", "same", "changed", "gone"]
Writer = Literal["me", "several", "another", "unseen"]
Declaration = Literal["nothing", "read", "written", "changed"]
Basis = Literal["seen", "given", "declared"]

READ_OR_NOT: Final = "it is not known whether it was read before it was overwritten or removed"
WHO_WROTE: Final = "it is not known which of the concurrent calls wrote it"
WHO_WROTE_WHAT: Final = "it is not known what each of the concurrent calls wrote"


@dataclass(frozen=True)
class Facts:
    """What is known of a path when a call ends.

    `change` compares it with the begin of the call; `found` was there before, although nobody had looked. `read`: the
    call was seen to read what was there when it began. `writer` is who was seen to write it: this call, this and
    another one at once, another one, or nobody. `kept`: a part of what was there is in what is there now. `alone`: no
    other call could have written it unseen. `declared` is what `@recorded` says of the parameter. `named`: it is in the
    result. `given`: it was passed to the call, so a C library or a program may have read it unseen.
    """

    change: Change
    read: bool = False
    writer: Writer = "unseen"
    kept: bool = False
    alone: bool = True
    declared: Declaration = "nothing"
    named: bool = False
    given: bool = False


@dataclass(frozen=True)
class Edges:
    """What follows.

    `used` says that the call used what was there, and how that is known; `made`, that it made what is there now;
    `derived`, that it made the one from the other; `unknown`, what cannot be said.
    """

    used: Basis | None = None
    made: bool = False
    derived: bool = False
    unknown: str | None = None


def edges_of(facts: Facts) -> Edges:
    """Decide what a call did with a path."""
    made, who = _made(facts)
    used, whether = _used(facts, made)
    kept = facts.declared == "changed" or (facts.declared != "written" and (facts.read or facts.kept))
    return Edges(used, made, made and kept and facts.change == "changed", who or whether)


def _made(facts: Facts) -> tuple[bool, str | None]:
    if facts.change in ("found", "same", "gone"):
        return False, None
    if facts.writer == "me":
        return True, None
    if facts.writer == "several":
        return False, WHO_WROTE_WHAT
    if facts.declared != "nothing":
        return facts.declared != "read", None
    if facts.writer == "another":
        return False, None
    if facts.named or facts.alone:
        return True, None
    return False, WHO_WROTE


def _used(facts: Facts, made: bool) -> tuple[Basis | None, str | None]:
    if facts.change == "new":
        return None, None
    if facts.declared != "nothing":
        return ("declared" if facts.declared != "written" else None), None
    if facts.read:
        return "seen", None
    # What is appended to is not read, and yet it is in the result.
    if made and facts.kept and facts.change == "changed":
        return "seen", None
    if facts.writer != "unseen" or facts.change == "found":
        return None, None
    if facts.change == "same":
        return ("given" if facts.given else None), None
    return None, READ_OR_NOT
