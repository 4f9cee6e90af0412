"""How logs and messages give numbers, names and durations, and how a user decides a doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ivcap_flows.errors import UnreachableError
from ivcap_flows.identity import short_id

__all__ = ["counted", "decide", "duration", "forget", "listed", "unclear_reply"]

_MOST: Final = 5
"""Maximum number of names in one line."""


def counted(count: int, nouns: str) -> str:
    """Return a number of things: "1 job", "3 jobs"."""
    return f"{count} {nouns if count != 1 else nouns.removesuffix('s')}"


def decide(key: str, urn: str = "<urn>") -> str:
    """Return the sentence that says how to decide whether a request took effect."""
    return f"Decide with `ivcap-flows orders resolve {key} --urn {urn}`, or with `--none` to send it again."


def forget(noun: str, key: str, urn: str, account: str) -> str:
    """Return the sentences on an effect that the journal has and the platform does not find."""
    return (
        f"The journal has {urn} as the {noun} of the account {account}. Another account may not see it, and a platform "
        f"that came back from a backup may have lost it. If it is lost: `ivcap-flows orders forget {short_id(key)}` "
        "lets the next run request it again."
    )


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: "2 hours"."""
    whole = max(0, round(seconds))
    for units, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if whole >= length:
            return counted(whole // length, units)
    return f"{whole} s"


def unclear_reply(error: BaseException) -> str:
    """Return the log's sentence about a request that may have had its effect, for its noun, key and error."""
    if isinstance(error, UnreachableError):
        return "The reply to the %s %s was lost, so it is looked for: %s"
    return "The reply to the %s %s does not say whether it took effect, so it is looked for: %s"


def listed(names: Iterable[str]) -> str:
    """Return names in one line, each once: "north, south (2) and 3 more"."""
    counts = Counter(names)
    shown = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
    left = sum(list(counts.values())[_MOST:])
    return ", ".join(shown[:_MOST]) + (f" and {left} more" if left else "")
