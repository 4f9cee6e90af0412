"""Orders in the store. A job carries out each of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors, schemas
from ivcap_flows.local.ivcap.access import POLICY, checked_policy, may_read
from ivcap_flows.local.ivcap.aspects.state import Aspects
from ivcap_flows.local.ivcap.jobs.state import Jobs
from ivcap_flows.local.ivcap.replies import compact
from ivcap_flows.local.ivcap.services.parameters import checked_values, converted
from ivcap_flows.local.ivcap.services.state import Services
from ivcap_flows.local.tokens import Principal

__all__ = ["Orders"]


class Orders:
    def __init__(self, store: Store, aspects: Aspects, services: Services, jobs: Jobs) -> None:
        self._store, self._aspects, self._services, self._jobs = store, aspects, services, jobs

    def place(self, who: Principal, wanted: Mapping[str, Any]) -> sqlite3.Row:
        """Check an order, and record it and the job that carries it out. Raises Problem 404, 422."""
        service = self._service(who, wanted.get("service"))
        definitions = json.loads(service["parameters"])
        if "parameters" not in wanted:
            raise errors.parameter("parameters", "parameters is missing; it may be an empty list.")
        values = checked_values(definitions, wanted["parameters"])
        name, tags = wanted.get("name"), wanted.get("tags")
        tags = [] if tags is None else tags
        if name is not None and not isinstance(name, str):
            raise errors.parameter("name", "name must be a string.")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise errors.parameter("tags", "tags must be a list of strings.")
        policy = checked_policy(wanted.get("policy"), "order")
        with self._store.transaction():
            row = self._record(who, service["id"], values, name=name, tags=tags, policy=policy)
            self._jobs.create(who, service, converted(definitions, values), row, leads=True)
            return row

    def request(
        self, who: Principal, service: sqlite3.Row, request: Any, *, order: str | None, policy: str | None
    ) -> str:
        """Record a job for a request document, and an order if none is given. Return the job's URN."""
        with self._store.transaction():
            if order is None:
                row = self._record(who, service["id"], [], name=None, tags=[], policy=POLICY["order"])
            else:
                row = self.read(who, ids.as_urn("order", order) or order)
                if row["account"] != who.account:
                    raise errors.forbidden("The order belongs to another account.")
            return self._jobs.create(who, service, request, row, leads=order is None, policy=policy)

    def _service(self, who: Principal, given: Any) -> sqlite3.Row:
        if not isinstance(given, str) or not given:
            raise errors.parameter("service", "service is missing; it must be the URN of a service.")
        urn = ids.as_urn("service", given)
        if urn is None:
            raise errors.not_found("service", given[:200])
        return self._services.usable(who, urn)

    def _record(
        self,
        who: Principal,
        service: str,
        values: list[dict[str, str]],
        *,
        name: str | None,
        tags: list[str],
        policy: str,
    ) -> sqlite3.Row:
        urn = ids.new_urn("order")
        # Orders on real platforms show this parameter, which the platform adds.
        stored = [*values, {"name": "cayp-order-id", "value": urn}]
        self._store.insert(
            "orders",
            id=urn,
            account=who.account,
            policy=policy,
            service=service,
            name=name or f"Order {urn.rsplit(':', 1)[-1]}",
            tags=compact(tags),
            parameters=compact(stored),
            status="pending",
            ordered_at=clock.now(),
            visible_from=clock.visible_from(),
        )
        placed = {"service": service, "parameters": stored, "submitter": who.subject}
        self._aspects.add(who, urn, schemas.ORDER_PLACED, placed)
        row = self._find(urn)
        assert row is not None
        return row

    def read(self, who: Principal, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        if row is None or not may_read(row, who):
            raise errors.not_found("order", urn)
        return row

    def products(self, urn: str, *, limit: int) -> list[sqlite3.Row]:
        """Return the first products, in the order of their creation."""
        return self._store.all(
            "SELECT products.seq AS seq, a.id, a.name, a.status, a.mime, a.size, a.created_at"
            " FROM products JOIN artifacts a ON a.id = products.artifact"
            " WHERE products.order_id = ? ORDER BY products.seq LIMIT ?",
            (urn, limit),
        )

    def jobs(self, urn: str) -> list[str]:
        return [row["id"] for row in self._store.all("SELECT id FROM jobs WHERE order_id = ? ORDER BY seq", (urn,))]

    def _find(self, urn: str) -> sqlite3.Row | None:
        return self._store.one("SELECT * FROM orders WHERE id = ?", (urn,))
