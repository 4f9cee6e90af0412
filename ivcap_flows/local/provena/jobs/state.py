"""The queue of asynchronous jobs: rows that appear late, move through their states and survive a restart."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import HTTPException

from ivcap_flows.local import clock
from ivcap_flows.local.clock import LATE
from ivcap_flows.local.likeness import Workers
from ivcap_flows.local.provena.store import Store, dumps, without_nulls

__all__ = ["MESSAGE_LIMIT", "SUB_TYPES", "Befalls", "Done", "Job", "JobError", "Jobs"]

_log = logging.getLogger(__name__)

MESSAGE_LIMIT: Final = 262144
"""Maximum bytes of an SNS message; a job must be smaller."""

SUB_TYPES: Final[dict[str, tuple[str, frozenset[str]]]] = {
    name: (job_type, frozenset(keys.split()))
    for job_type, name, keys in (
        ("PROV_LODGE", "MODEL_RUN_PROV_LODGE", "record revalidate user_info"),
        ("PROV_LODGE", "MODEL_RUN_BATCH_SUBMIT", "records user_info"),
        ("PROV_LODGE", "MODEL_RUN_UPDATE", "model_run_record_id updated_record reason revalidate user_info"),
        ("PROV_LODGE", "MODEL_RUN_LODGE_ONLY", "model_run_record_id record revalidate user_info"),
        ("PROV_LODGE", "MODEL_RUN_UPDATE_LODGE_ONLY", "model_run_record_id updated_record revalidate user_info"),
        (
            "PROV_LODGE",
            "LODGE_CREATE_ACTIVITY",
            "created_item_id creation_activity_id linked_person_id created_item_subtype",
        ),
        (
            "PROV_LODGE",
            "LODGE_VERSION_ACTIVITY",
            "from_version_id to_version_id version_activity_id linked_person_id item_subtype",
        ),
        ("PROV_LODGE", "PROV_LODGE_WAKE_UP", ""),
        ("REGISTRY", "REGISTER_CREATE_ACTIVITY", "created_item_id created_item_subtype linked_person_id"),
        (
            "REGISTRY",
            "REGISTER_VERSION_ACTIVITY",
            "reason version_number from_version_id to_version_id linked_person_id item_subtype",
        ),
        ("REGISTRY", "REGISTRY_WAKE_UP", ""),
        ("EMAIL", "SEND_EMAIL", "email_to subject body reason"),
        ("EMAIL", "EMAIL_WAKE_UP", ""),
        ("REPORT", "GENERATE_REPORT", "id item_subtype depth user_info"),
    )
}
"""Sub type -> (type, required keys of its payload)."""

_PAGE: Final = 1_000
"""Maximum rows of a page, however many are asked for, since DynamoDB limits a page's bytes."""
_DONE_ALREADY: Final = ""
"""The stored result of a row that went back to PENDING; it is shown as none."""
_STAGES: Final = (0.05, 0.15)
_NEXT: Final = {None: "PENDING", "PENDING": "DEQUEUED", "DEQUEUED": "IN_PROGRESS"}
_INFO: Final = {"DEQUEUED": "A worker has taken the job from its queue.", "IN_PROGRESS": "A worker is at the job."}


@dataclass(frozen=True)
class Job:
    """A job as its worker sees it."""

    session_id: str
    username: str
    batch_id: str | None
    payload: dict[str, Any]
    halfway: Callable[[], None] = lambda: None
    """Called in the middle of work with several steps, where a worker may stop."""


@dataclass(frozen=True)
class Done:
    """The result of a worker."""

    result: dict[str, Any]
    info: str | None = None


class JobError(Exception):
    """A job failed; the text becomes its `info`."""


class _WorkerStopped(Exception):  # noqa: N818 - the end of a worker, whatever becomes of the job
    """A worker stopped amid its work; what it did before that is kept."""


Worker = Callable[[Job], Done]
Befalls = Callable[[str], str | None]
"""`befalls(sub_type)` returns a fault of a job, or None: its worker dies `before`, `amid` or `after` its work; it is
`failed` amid its work; its row goes back to `pending` after it."""


class Jobs:
    """All jobs. Call `dispatch` and `advance` inside a transaction.

    With `workers`, only a few jobs are processed at once, and the others wait as PENDING; with None, each starts at
    once.
    """

    def __init__(self, store: Store, visibility_delay: float, befalls: Befalls) -> None:
        """`visibility_delay` is the number of seconds after which the row of an accepted job surely exists."""
        self._store, self._befalls = store, befalls
        self._late = min(_STAGES[1], visibility_delay / 2)
        self._does: dict[str, Worker] = {}
        self.workers: Workers | None = None
        self._any_wait = True
        self._handed_out = 0.0
        self._ready: dict[str, float] = {}
        """Job type -> when its workers have started, unless they have ended since."""
        self._busy_until: dict[str, float] = {}

    def work(self, sub_type: str, worker: Worker) -> None:
        """Register the function for the jobs of a sub type; other jobs succeed with an empty result."""
        self._does[sub_type] = worker

    def dispatch(self, username: str, sub_type: str, payload: dict[str, Any], batch_id: str | None = None) -> str:
        """Queue a job; return its session id. Raises a 500 refusal for a message that is too long."""
        text = dumps(without_nulls(payload))
        if len(text.encode()) + 512 >= MESSAGE_LIMIT:
            raise HTTPException(
                500,
                "Failed to launch the job. The job API answered 500: Invalid parameter: Message too long.",
            )
        session = self._store.new_id()
        paced = clock.machine()
        self._store.run(
            "INSERT INTO jobs (session_id, created_timestamp, username, batch_id, job_type, job_sub_type, payload, due)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(session, int(clock.seconds()), username, batch_id, SUB_TYPES[sub_type][0], sub_type, text),
            paced + LATE.get() + (min(self._late, _stage()) if self.workers is None else self.workers.row),
        )
        return session

    def next_due(self) -> float | None:
        """Return when the next state change is due, in seconds since 1970, or None."""
        row = self._store.row("SELECT min(due) AS due FROM jobs WHERE due IS NOT NULL")
        known = [row["due"]] if row and row["due"] is not None else []
        return min([*known, *(at for at in self._ready.values() if at > self._handed_out)], default=None)

    def advance(self) -> None:
        """Move every job that is due by one state."""
        due = "SELECT * FROM jobs WHERE due <= ? ORDER BY due LIMIT 50"
        for row in self._store.rows(due, clock.machine()):
            if row["status"] == "IN_PROGRESS":
                self._finish(row)
            elif row["status"] == "PENDING" and self.workers is not None:
                self._any_wait = True
                self._store.run("UPDATE jobs SET due=NULL WHERE session_id=?", row["session_id"])
            else:
                self._move(row["session_id"], _NEXT[row["status"]], self._lasts(_NEXT[row["status"]]))
        if self._any_wait:
            self._hand_out()

    def _hand_out(self) -> None:
        """Give waiting jobs to free workers, in order of arrival."""
        now, workers = clock.machine(), self.workers
        self._handed_out = now
        waiting = "job_type=? AND status='PENDING' AND due IS NULL AND result IS NULL"
        found = self._store.rows(
            "SELECT DISTINCT job_type FROM jobs WHERE status='PENDING' AND due IS NULL AND result IS NULL"
        )
        self._any_wait = bool(found)
        if workers is None:
            self._ready.clear()
            self._busy_until.clear()
        for each in found:
            kind = each["job_type"]
            free = -1
            if workers is not None:
                # A dead worker leaves its job as it is, and another worker replaces it.
                busy = "job_type=? AND status IN ('DEQUEUED', 'IN_PROGRESS') AND due IS NOT NULL"
                at_work = self._store.row(f"SELECT count(*) AS count FROM jobs WHERE {busy}", kind)  # noqa: S608
                free = max(0, workers.count - (at_work["count"] if at_work else 0))
                if self._starts_at(kind, now, workers) > now:
                    continue
                if free < workers.count:
                    self._busy_until[kind] = now
            some = f"SELECT session_id FROM jobs WHERE {waiting} ORDER BY rowid LIMIT ?"  # noqa: S608
            for row in self._store.rows(some, kind, free) if free else ():
                self._busy_until[kind] = now
                self._move(row["session_id"], "DEQUEUED", random.uniform(0, workers.poll) if workers else 0.0)  # noqa: S311

    def _starts_at(self, kind: str, now: float, workers: Workers) -> float:
        """Return when the workers of a type have started; they start on demand."""
        if now - self._busy_until.get(kind, self._ready.get(kind, -workers.idle)) > workers.idle:
            self._ready[kind] = now + workers.cold
            self._busy_until.pop(kind, None)
        return self._ready[kind]

    def _move(self, session_id: str, status: str, lasts: float) -> None:
        self._store.run(
            "UPDATE jobs SET status=?, info=?, due=? WHERE session_id=?",
            *(status, _INFO.get(status), clock.machine() + lasts, session_id),
        )

    def _lasts(self, status: str) -> float:
        """Return how many seconds a job stays in a state."""
        if self.workers is None:
            return _stage()
        return self.workers.work if status == "IN_PROGRESS" else 0.0

    def _finish(self, row: sqlite3.Row) -> None:
        worker = self._does.get(row["job_sub_type"], _nothing_to_do)
        fault = self._befalls(row["job_sub_type"])
        if fault == "before":
            worker = _nothing_to_do

        def halfway() -> None:
            if fault in ("amid", "failed"):
                raise _WorkerStopped

        job = Job(row["session_id"], row["username"], row["batch_id"], json.loads(row["payload"]), halfway)
        try:
            with self._store.attempt():
                try:
                    done = worker(job)
                except _WorkerStopped:
                    done = Done({})
        except sqlite3.Error:
            raise
        except (JobError, HTTPException) as error:
            why = error.detail if isinstance(error, HTTPException) else str(error)
            values: tuple[Any, ...] = ("FAILED", why, None)
        except Exception:  # noqa: BLE001 - a job that fails must not stop the others
            _log.warning("The job %s of the embedded Provena failed.", job.session_id, exc_info=True)
            values = ("FAILED", "The job's payload could not be used. Error: ..", None)
        else:
            values = ("SUCCEEDED", done.info, dumps(without_nulls(done.result)))
        if fault == "failed":
            values = ("FAILED", "The job stopped amid its work. Error: ..", None)
        elif fault == "pending":
            # The write of a job's beginning came after that of its end. No worker gets the job again.
            values = ("PENDING", None, _DONE_ALREADY)
        elif fault is not None:
            # A dead worker does not report the end of its job, whatever the result was.
            values = (row["status"], row["info"], None)
        self._store.run(
            "UPDATE jobs SET status=?, info=?, result=?, due=NULL WHERE session_id=?", *values, job.session_id
        )

    def fetch(self, session_id: str) -> dict[str, Any] | None:
        """Return the row of a job, or None while it does not exist."""
        row = self._store.row("SELECT * FROM jobs WHERE session_id=? AND status IS NOT NULL", session_id)
        return _shown(row) if row else None

    def page(self, where: dict[str, str], limit: int, after: dict[str, Any] | None) -> dict[str, Any]:
        """Return a page of the rows with these column values, newest first, and the key to continue after."""
        conditions = ["status IS NOT NULL", *(f"{column}=?" for column in where)]
        values: list[Any] = list(where.values())
        if after == {} and not self._store.row(
            f"SELECT 1 FROM jobs WHERE {' AND '.join(conditions)}",  # noqa: S608 - column names are our own
            *values,
        ):
            # If there are no rows at all, the real server ignores the key.
            after = None
        if after is not None:
            conditions.append("(created_timestamp, session_id) < (?, ?)")
            values += _place(after)
        limit = min(limit, _PAGE)
        if limit < 1:
            raise HTTPException(500, f"The jobs could not be listed: limit {limit} is below 1.")
        rows = self._store.rows(
            f"SELECT * FROM jobs WHERE {' AND '.join(conditions)}"  # noqa: S608 - column names are our own
            " ORDER BY created_timestamp DESC, session_id DESC LIMIT ?",
            *values,
            limit,
        )
        key = None
        if len(rows) == limit:
            last = rows[-1]
            key = {name: last[name] for name in ("session_id", "created_timestamp", *where)}
        return {"jobs": [_shown(row) for row in rows], "pagination_key": key}

    def of_batch(self, batch_id: str) -> list[dict[str, Any]]:
        """Return every row of a batch."""
        rows = self._store.rows("SELECT * FROM jobs WHERE batch_id=? AND status IS NOT NULL", batch_id)
        return [_shown(row) for row in rows]


def _nothing_to_do(job: Job) -> Done:
    return Done({})


def _stage() -> float:
    """Return random seconds until the next state of a job, so that jobs overtake each other."""
    return random.uniform(*_STAGES)  # noqa: S311


def _place(key: dict[str, Any]) -> tuple[int, str]:
    try:
        created = int(key["created_timestamp"])
        if abs(created) >= 2**63:
            raise ValueError(created)
        return created, str(key["session_id"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise HTTPException(500, "The jobs could not be listed: the pagination key is malformed.") from error


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "session_id": row["session_id"],
        "created_timestamp": row["created_timestamp"],
        "username": row["username"],
        "batch_id": row["batch_id"],
        "payload": json.loads(row["payload"]),
        "job_type": row["job_type"],
        "job_sub_type": row["job_sub_type"],
        "gsi_status": "ok",
        "status": row["status"],
        "info": row["info"],
        "result": json.loads(row["result"]) if row["result"] else None,
    }
