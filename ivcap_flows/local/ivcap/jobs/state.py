"""Jobs in the store: created with their order, moved forward only, finished once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.identity import artifact_urns, ivcap_urn
from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap import errors, schemas
from ivcap_flows.local.ivcap.access import POLICY, may_read
from ivcap_flows.local.ivcap.artifacts.state import Artifacts
from ivcap_flows.local.ivcap.aspects.state import Aspects
from ivcap_flows.local.ivcap.jobs.changes import Changes
from ivcap_flows.local.ivcap.jobs.logs import read_log
from ivcap_flows.local.ivcap.replies import compact
from ivcap_flows.local.tokens import Principal

__all__ = ["TERMINAL", "Jobs", "Outcome"]

TERMINAL: Final = frozenset({"succeeded", "failed", "error"})
_RANK: Final = {"pending": 0, "scheduled": 1, "executing": 2, "succeeded": 3, "failed": 3, "error": 3}


@dataclass(frozen=True)
class Outcome:
    """The end of a job. A JSON result is its text; any other result is an artifact named by `urn`."""

    status: str
    result: str | None = None
    result_type: str | None = None
    urn: str | None = None
    error_message: str | None = None


class Jobs:
    def __init__(
        self, store: Store, directory: Directory, aspects: Aspects, artifacts: Artifacts, changes: Changes
    ) -> None:
        self._store, self._directory, self._aspects = store, directory, aspects
        self._artifacts, self._changes = artifacts, changes

    def create(
        self,
        who: Principal,
        service: sqlite3.Row,
        request: Any,
        order: sqlite3.Row,
        *,
        leads: bool,
        policy: str | None = None,
    ) -> str:
        """Record a job of an order; with `leads` the order follows its status. Return its URN."""
        urn = ids.new_urn("job")
        with self._store.transaction():
            self._store.insert(
                "jobs",
                id=urn,
                account=who.account,
                policy=policy or (POLICY["job"] if order["policy"] == POLICY["order"] else order["policy"]),
                subject=who.subject,
                order_id=order["id"],
                leads=int(leads),
                service=service["id"],
                name=f"{service['name'] or 'job'}-{urn.rsplit(':', 1)[-1][:8]}",
                status="pending",
                request=compact(request),
                requested_at=clock.now(),
                visible_from=clock.visible_from(),
            )
            self._tell(urn, "pending")
            if isinstance(request, dict) and isinstance(request.get("$schema"), str):
                self._aspects.add(who, urn, request["$schema"], request)
            for artifact in artifact_urns(request):
                used = {"order": order["id"], "artifact": artifact}
                self._aspects.add(who, order["id"], schemas.USES, used)
                self._aspects.add(who, artifact, schemas.USED_BY, used)
        self._changes.publish(urn)
        return urn

    def advance(self, urn: str, status: str) -> None:
        """Move a job forward; a step back or sideways changes nothing."""
        self._move(urn, status, {"started_at": clock.now()} if status == "executing" else {})

    def finish(self, urn: str, outcome: Outcome) -> None:
        """End a job; only the first end counts."""
        with self._store.transaction():
            row = self.get(urn)
            moved = self._move(
                urn,
                outcome.status,
                {
                    "finished_at": clock.now(),
                    "result": outcome.result,
                    "result_type": outcome.result_type,
                    "result_urn": outcome.urn,
                    "error_message": outcome.error_message,
                },
            )
            if moved:
                self._record_end(row, outcome)

    def _record_end(self, row: sqlite3.Row, outcome: Outcome) -> None:
        who = self.owner(row)
        end = {"phase": outcome.status, "out-content-type": outcome.result_type, "out-content-urn": outcome.urn}
        content = {name: value for name, value in end.items() if value is not None}
        self._aspects.add(who, row["id"], schemas.JOB_RESULT, content)
        result = json.loads(outcome.result) if outcome.result is not None else None
        if not isinstance(result, dict) or not isinstance(result.get("$schema"), str):
            return
        # `$id` attaches the result to another entity, `$policy` sets its policy.
        entity = result["$id"] if isinstance(result.get("$id"), str) and ":" in result["$id"] else row["id"]
        policy = result.get("$policy")
        valid = isinstance(policy, str) and policy.startswith("urn:ivcap:policy:")
        self._aspects.add(who, entity, result["$schema"], result, policy=str(policy) if valid else POLICY["aspect"])

    def _move(self, urn: str, status: str, fields: Mapping[str, Any]) -> bool:
        with self._store.transaction():
            row = self.get(urn)
            if _RANK[status] <= _RANK[row["status"]]:
                return False
            self._store.update("jobs", urn, status=status, **fields)
            if row["leads"]:
                times = {name: fields[name] for name in ("started_at", "finished_at") if name in fields}
                self._store.update("orders", row["order_id"], status=status, **times)
                if status in TERMINAL:
                    done = {"status": status, "finished-at": clock.stamp(fields["finished_at"]), "job": urn}
                    self._aspects.add(self.owner(row), row["order_id"], schemas.ORDER_FINISHED, done)
            self._tell(urn, status)
        self._changes.publish(urn)
        return True

    def _tell(self, urn: str, status: str) -> None:
        """Update the job's aspect and add an event for its status."""
        row = self.get(urn)
        service = self._store.one("SELECT name FROM services WHERE id = ?", (row["service"],))
        record = {
            "id": urn,
            "service-id": row["service"],
            "service-name": (service["name"] if service else None) or row["service"],
            "status": status,
            "order": row["order_id"],
            "requested-at": clock.stamp(row["requested_at"]),
            "started-at": row["started_at"] and clock.stamp(row["started_at"]),
            "finished-at": row["finished_at"] and clock.stamp(row["finished_at"]),
            "error-message": row["error_message"],
        }
        content = {name: value for name, value in record.items() if value is not None}
        self._aspects.tell(self.owner(row), urn, schemas.JOB, content)
        self._event(urn, "ivcap.job.status", schemas.JOB_STATUS, {"job-urn": urn, "status": status})

    def _event(self, urn: str, kind: str, schema: str, data: Any) -> None:
        at = clock.now()
        self._store.insert("events", job=urn, id=ids.new_id(), type=kind, schema=schema, data=compact(data), at=at)

    def take_events(self, urn: str, events: list[Any], read: int) -> None:
        """Record events of a service; `read` is how many bytes of its file have been read."""
        with self._store.transaction():
            for event in events:
                schema = event.get("$schema") if isinstance(event, dict) else None
                self._event(urn, "ivcap.job.event", str(schema or "urn:ivcap:schema:service.event.generic.1"), event)
            self._store.update("jobs", urn, events_read=read)
        self._changes.publish(urn)

    def events(self, urn: str, after: int, limit: int) -> list[sqlite3.Row]:
        return self._store.all(
            "SELECT * FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?", (urn, after, limit)
        )

    def active(self) -> list[sqlite3.Row]:
        """Return the jobs that have not ended, oldest first, without their large columns."""
        return self._store.all(
            "SELECT id, account, subject, order_id, service, status, requested_at, events_read FROM jobs"
            " WHERE finished_at IS NULL ORDER BY seq"
        )

    def read(self, who: Principal, service: str, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        if row is None or row["service"] != service or not may_read(row, who):
            raise errors.not_found("job", urn)
        return row

    def get(self, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        assert row is not None
        return row

    def _find(self, urn: str) -> sqlite3.Row | None:
        return self._store.one("SELECT * FROM jobs WHERE id = ?", (urn,))

    def products(self, urn: str) -> list[sqlite3.Row]:
        return self._store.all(
            "SELECT a.* FROM products JOIN artifacts a ON a.id = products.artifact WHERE products.job = ?"
            " ORDER BY products.seq",
            (urn,),
        )

    def log(self, urn: str, begin: int | None = None, end: int | None = None) -> bytes:
        """Return the service's output so far, from `begin` to before `end` (milliseconds since 1970)."""
        return read_log(self._directory.run(urn), begin, end)

    @staticmethod
    def owner(row: sqlite3.Row) -> Principal:
        """Return the principal for which a job acts."""
        return Principal(row["account"], row["subject"], "", "", row["id"])

    def adopt_product(self, row: sqlite3.Row, product: Mapping[str, Any], *, listed: bool = True) -> None:
        """Record an artifact whose bytes the runner has put in place. Idempotent."""
        self._artifacts.adopt(
            self.owner(row),
            ivcap_urn("artifact", product["id"]),
            name=product["name"],
            mime=product["media_type"],
            size=product["size"],
            sha256=product["sha256"],
            policy=POLICY["artifact"],
            job=row["id"] if listed else None,
        )
