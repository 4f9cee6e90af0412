"""What orders and jobs share: the mark by which they are found again, and waits that a plan cannot make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ivcap_flows.durable import planning
from ivcap_flows.handles import Handle
from ivcap_flows.identity import short_id

__all__ = ["PAGES", "PlannedError", "tag", "waiting_for"]

PAGES: Final = 20
"""Pages of a list that one look of a poller reads at most; what is older is read by itself."""


class PlannedError(BaseException):
    """Ends a flow that is only being planned, where it would wait for work that was not sent.

    Not an Exception: a flow that catches errors must not go on as if the work had failed.
    """

    @classmethod
    def refuse(cls, work: Sequence[Handle | str]) -> None:
        """Raise if a plan is being made and any of this work would still have to be sent."""
        waiting = [str(each) for each in work if str(each).startswith("urn:ivcap-flows:planned:")]
        if waiting and planning() is not None:
            raise cls(f"The plan ends here: the flow would wait for {len(waiting)} that are not sent.")


def tag(key: str) -> str:
    """The tag that an order placed under a key bears."""
    return f"ivcap-flows:{short_id(key)}"


def waiting_for(what: str) -> Callable[[dict[str, Any]], str]:
    """The name of a run that waits for the given `orders` or `jobs`."""

    def name(given: dict[str, Any]) -> str:
        count = len(given[what])
        return f"wait for {count} {what if count != 1 else what.removesuffix('s')}"

    return name
