"""What happens to the world while the flow is at a step, beside kills. Each is one entry of `INCIDENTS`: the drawn
scenarios, their short form, the tables of the results and the search for its broken build follow from that.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from harness.trial import Trial

__all__ = ["HELD", "INCIDENTS", "LOST", "Incident"]

HELD: Final = "held"
"""The file that says that a process found a claim held by another one."""
LOST: Final = "lost"
"""The file with the URNs of the artifacts that the platform has lost."""
_AWAY: Final = 12.0
"""Seconds for which a flow stands still at a step; before it sends, it asks the journal again after 15 s."""
_BESIDE: Final = 6.0
"""Seconds for which it does, at most, while another journal goes on with the same."""
_STANDS: Final = 30.0
"""Seconds for which it does, at most, while Prefect comes back; it has its slot for 60."""
_COPIES: Final = "copies"
"""The folder with the journal's file as it was before each commit."""


@dataclass(frozen=True)
class Incident:
    """The flow waits at one of `steps` until `happen` has returned; with `ends`, it is killed before.

    `given` are fields of a scenario that has it, and `without` the variations that it does not have. `within` is done
    in each process of the flow, which has this folder, before it begins. `visibility_delay` are the seconds that these
    assume, so that no journal loses its patience with one that stands still at a step; production has 120. `together`:
    more than one process is at work, each in a run of its own, and these are to share their effects. `forgets`: a
    process has a journal that lacks what another process did. `build` is the broken build that it finds, with the step
    at which it does, and `finds` how that shows in the verdict.
    """

    happen: Callable[[Trial], None]
    steps: tuple[str, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ("new journal",)
    within: Callable[[Path], None] | None = None
    visibility_delay: float | None = None
    together: bool = False
    forgets: bool = False
    ends: bool = False
    build: tuple[str, str] | None = None
    finds: str = "duplicates"


def copy_the_home(trial: Trial) -> None:
    """Another machine, whose home is a copy of this one's, is given the same command: it waits for the live process."""
    copy = trial.folder / f"home-{len(list(trial.folder.glob('home-*')))}"
    shutil.copytree(trial.home, copy)
    (trial.folder / HELD).unlink(missing_ok=True)
    other = trial.begin_another(XDG_DATA_HOME=str(copy))
    _until(lambda: other.ended.is_set() or (trial.folder / HELD).exists(), _AWAY)


def copy_at_each_commit(folder: Path) -> None:
    copies = folder / _COPIES
    copies.mkdir(exist_ok=True)

    def copy(connection: sa.Connection) -> None:
        path = copies / f"{time.time_ns()}-{os.getpid()}.sqlite"
        file = str(connection.engine.url.database)
        with closing(sqlite3.connect(file)) as journal, closing(sqlite3.connect(path)) as made:
            made.execute("PRAGMA synchronous = OFF")
            journal.backup(made)

    sa.event.listen(sa.Engine, "commit", copy)


def put_the_journal_back(trial: Trial) -> None:
    """The journal's file is again as it was at an earlier moment, another one each time. What follows has to show the
    attempts since, as the copy may know none of those before."""
    copies = sorted((trial.folder / _COPIES).iterdir())
    times = len(list(trial.folder.glob("entered-*")))
    number = (trial.scenario.seed + 11 * times) % len(copies)
    trial.say(f"--- the journal is put back as it was before commit {number} of {len(copies)}\n")
    for left in trial.folder.glob("journal-0.sqlite*"):
        if left.name.endswith((".sqlite", "-wal", "-shm")):
            left.unlink()
    shutil.copy(copies[number], trial.folder / "journal-0.sqlite")
    (trial.folder / "entered").rename(trial.folder / f"entered-{times}")


def begin_with_another_journal(trial: Trial) -> None:
    """A process with a journal of its own does the same meanwhile, for a while or to its end."""
    other = trial.begin_another(IVCAP_FLOWS_JOURNAL=trial.another_journal())
    _until(other.ended.is_set, random.Random(trial.scenario.seed + len(trial.journals)).uniform(0.5, _BESIDE))


def move_the_journal(trial: Trial) -> None:
    """The journal moves to the other kind of database and back, and the next command finds it there at once."""
    old = trial.environment["IVCAP_FLOWS_JOURNAL"]
    name = f"moved-{len(trial.journals)}"
    to_server = old.startswith("sqlite")
    new = (
        trial.stage.database(f"{trial.folder.name}-{name}") if to_server else f"sqlite:///{trial.folder}/{name}.sqlite"
    )
    trial.journals.append(new)
    trial.say(f"--- the journal moves to {new}\n")
    trial.asked("journal", "move", old, new)
    trial.environment["IVCAP_FLOWS_JOURNAL"] = new


def restart_prefect(trial: Trial) -> None:
    """Prefect's server is killed and comes back: while the flow stands still, or while it goes on."""
    assert trial.prefect is not None
    trial.prefect.restart(_STANDS if trial.scenario.seed % 2 else 0.0)


def lose_the_upload(trial: Trial) -> None:
    """The platform has come back from a backup without the first upload, and answers 404 of it."""
    name = f"{trial.scenario.mark}-series.bin"
    with closing(sqlite3.connect(trial.platform.database, timeout=30)) as database, database:
        database.execute("PRAGMA foreign_keys = OFF")
        gone = database.execute("DELETE FROM artifacts WHERE name = ? RETURNING id", (name,)).fetchall()
    with (trial.folder / LOST).open("a", encoding="ascii") as told:
        told.writelines(f"{urn}\n" for (urn,) in gone)


def _until(happened: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
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
        build=("a lock file known by its name", "after the mark"),
    ),
    "restored journal": Incident(
        put_the_journal_back,
        steps=(
            "after the intent",
            "after the idempotency record",
            "after the mark",
            "with the request on its way",
            "after the request, before its reply",
            "after the reply",
            "before the outcome is told",
            "in the wait",
            "before its name is noted",
            "after the last byte",
            "before the flow ends",
            "after its end is noted",
        ),
        given={"backend": "sqlite"},
        without=("new journal", "equal jobs"),
        within=copy_at_each_commit,
        forgets=True,
        ends=True,
        build=("records belong to the journal", "before the flow ends"),
    ),
    "two journals": Incident(
        begin_with_another_journal,
        steps=(
            "before the upload is told",
            "before the intent",
            "after the intent",
            "after the idempotency record",
            "after the mark",
            "after the reply",
            "before the outcome is told",
            "in the wait",
            "before the fan-in upload",
            "before its name is noted",
            "after the last byte",
        ),
        # Of what was refused or shows late, two journals at once may make two, and of all that has no record.
        given={"backend": "sqlite", "fault": "lost replies"},
        without=("new journal", "other effects"),
        visibility_delay=30.0,
        together=True,
        forgets=True,
        build=("each journal keeps its upload", "before the upload is told"),
    ),
    "moved journal": Incident(
        move_the_journal,
        steps=(
            "after the intent",
            "after the idempotency record",
            "after the mark",
            "with the request on its way",
            "after the request, before its reply",
            "after the reply",
            "before the outcome is told",
            "in the wait",
            "before its name is noted",
            "after a chunk",
            "before the flow ends",
        ),
        ends=True,
        build=("a noted death is not believed", "after the reply"),
    ),
    "lost upload": Incident(
        lose_the_upload,
        steps=("before the intent", "after the intent", "after the idempotency record", "before the request"),
        # What else names the artifact is on the platform already, and stays.
        without=("new journal", "other effects", "equal jobs"),
        build=("what is lost is kept", "before the intent"),
        finds="lost",
    ),
    "restart of Prefect": Incident(
        restart_prefect,
        steps=("after the mark", "with the request on its way"),
        # One at a time: nobody can give back a slot whose taking was not answered.
        given={"limited": True, "orders": 1},
        build=("slots left to their leases", "after the mark"),
        finds="lost",
    ),
}
"""By the name that stands for the victim in a `Kill`."""
