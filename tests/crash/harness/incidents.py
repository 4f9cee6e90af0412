"""What happens to the world while the flow is at a step, beside kills. Each is one entry of `INCIDENTS`: the drawn
scenarios, their short form, the tables of the results and the search for its broken build follow from that.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from harness.trial import Trial

__all__ = ["HELD", "INCIDENTS", "Incident"]

HELD: Final = "held"
"""The file that says that a process found a claim held by another one."""
_AWAY: Final = 12.0
"""Seconds for which a flow stands still at a step; before it sends, it asks the journal again after 15 s."""


@dataclass(frozen=True)
class Incident:
    """The flow waits at one of `steps` until `happen` has returned; with `ends`, it is killed before.

    `given` are fields of a scenario that has it, and `without` the variations that it does not have. `together`: more
    than one process is at work, each in a run of its own, and these are to share their effects. `build` is the broken
    build that it finds, at the first of its steps.
    """

    happen: Callable[[Trial], None]
    steps: tuple[str, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ("new journal",)
    together: bool = False
    ends: bool = False
    build: str | None = None


def copy_the_home(trial: Trial) -> None:
    """Another machine, whose home is a copy of this one's, is given the same command: it waits for the live process."""
    copy = trial.folder / f"home-{len(list(trial.folder.glob('home-*')))}"
    shutil.copytree(trial.home, copy)
    (trial.folder / HELD).unlink(missing_ok=True)
    other = trial.begin_another(XDG_DATA_HOME=str(copy))
    end = time.monotonic() + _AWAY
    while not (other.ended.is_set() or (trial.folder / HELD).exists() or time.monotonic() > end):
        time.sleep(0.02)


INCIDENTS: Final[dict[str, Incident]] = {
    "copied home": Incident(
        copy_the_home,
        steps=(
            "after the mark",
            "after the intent",
            "before the request",
            "after the request, before its reply",
            "after the reply",
            "before the outcome is told",
        ),
        given={"backend": "postgresql"},
        together=True,
        build="a lock file known by its name",
    ),
}
"""By the name that stands for the victim in a `Kill`."""
