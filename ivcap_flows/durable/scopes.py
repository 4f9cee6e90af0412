"""Scopes: within which range two equal requests are one effect, and a warning when two calls share one."""

from __future__ import annotations

import uuid
from collections import OrderedDict, deque
from typing import Final, get_args

from ivcap_flows.errors import InputError
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow
from ivcap_flows.secrets import logger_of

__all__ = ["Tries", "expand", "is_second_call", "warn_shared"]

logger = logger_of("ivcap_flows.durable")

_warned: deque[str] = deque(maxlen=1_000)


Tries = tuple[tuple[str, int], ...]
"""The Prefect task runs around a call, the outermost first. The number grows with each try of a task run."""

_asked: OrderedDict[tuple[str, str], Tries] = OrderedDict()
"""By attempt and key, the last call of this process that requested an effect."""
_MOST: Final = 100_000


def is_second_call(attempt_id: str, key: str, tries: Tries) -> bool:
    """Return whether another call of the attempt requested this effect before, in this process.

    A further try of a task run requests its effects once more, and is no other call.
    """
    before = _asked.pop((attempt_id, key), None)
    _asked[attempt_id, key] = tries
    if len(_asked) > _MOST:
        _asked.popitem(last=False)
    pairs = zip(before or (), tries, strict=False)
    return before is not None and not any(one[0] == other[0] and one[1] < other[1] for one, other in pairs)


def expand(once_per: OncePer, *, run: str | None, flow: str | None) -> str:
    """Return the scope as a part of the key. Outside a run, each call gets a scope of its own.

    `flow` is the flow's name, which does not depend on the place of its code. Raise InputError for another word.
    """
    if once_per not in get_args(OncePer):
        words = ", ".join(map(repr, get_args(OncePer)))
        raise InputError(f"The argument once_per is one of {words}, not {once_per!r}.")
    if once_per == "account":
        return "account"
    if once_per == "run" and run is not None:
        return f"run:{run}"
    if once_per == "flow" and flow is not None:
        return f"flow:{flow}"
    return f"call:{uuid.uuid4()}"


def warn_shared(intent: IntentRow, once_per: OncePer) -> None:
    """Warn, once per key and process, that two calls of one run share an effect. Once per account, that is intended."""
    if once_per == "account" or intent.run_id is None or intent.key in _warned:
        return
    _warned.append(intent.key)
    subject = f" for {intent.subject}" if intent.subject else ""
    logger.warning(
        "Two calls in one run ask for the same %s%s, so they share one (%s). If two are meant, give each call its own "
        "discriminator='…', or once_per='call' for one that is never shared.",
        intent.noun,
        subject,
        intent.urn or intent.key,
    )
