"""Requests for other roles: store, list, annotate, change and remove them.

An entry has the form `RequestAccessTableItem` of the package `provena-interfaces-v2`.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from ivcap_flows.local import clock
from ivcap_flows.local.provena.auth.report import access_report
from ivcap_flows.local.provena.registry.state import UnsuccessfulError
from ivcap_flows.local.provena.store import Store, dumps
from ivcap_flows.local.provena.users import User

__all__ = ["AccessRequests", "State"]

State = Literal["PENDING_APPROVAL", "APPROVED_PENDING_ACTION", "DENIED_PENDING_DELETION", "ACTIONED_PENDING_DELETION"]
_STATES: Final[dict[State, str]] = {
    "PENDING_APPROVAL": "request received, awaiting action",
    "APPROVED_PENDING_ACTION": "request approved, action underway",
    "DENIED_PENDING_DELETION": "request denied",
    "ACTIONED_PENDING_DELETION": "request approved and completed",
}
"""The text for the user of a request."""
_KEPT_SECONDS: Final = 90 * 24 * 3600
_LARGEST: Final = 2**63 - 1


class AccessRequests:
    """The users' requests. The roles themselves are given in Keycloak, by hand."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, user: User, wanted: dict[str, Any]) -> None:
        """Store a request. Raises UnsuccessfulError if it asks for nothing new."""
        now = int(clock.seconds())
        difference = _difference(access_report(user), wanted)
        if not difference["components"]:
            raise UnsuccessfulError("The request asks for no other roles than the user has.")
        entry = {
            "username": user.username,
            "expiry": now + _KEPT_SECONDS,
            "email": user.email or user.username,
            "created_timestamp": now,
            "updated_timestamp": now,
            "status": "PENDING_APPROVAL",
            "ui_friendly_status": _STATES["PENDING_APPROVAL"],
            "request_diff_contents": dumps(difference),
            "complete_contents": dumps(wanted),
            "notes": "",
        }
        self._store.run("INSERT INTO access_requests (username, body) VALUES (?, ?)", user.username, dumps(entry))

    def every(self, username: str | None = None, *, pending: bool = False) -> list[dict[str, Any]]:
        """Return the requests of one user or of all, newest first."""
        rows = self._store.rows(
            "SELECT * FROM access_requests WHERE ?1 IS NULL OR username=?1 ORDER BY id DESC", username
        )
        found = [json.loads(row["body"]) | {"request_id": row["id"]} for row in rows]
        return [entry for entry in found if not pending or entry["status"] == "PENDING_APPROVAL"]

    def note(self, username: str, request: int, text: str) -> None:
        """Add a note to a request. Raises UnsuccessfulError."""
        entry = self._known(username, request)
        self._change(request, entry, notes=",".join(filter(None, (entry["notes"], text))))

    def move(self, username: str, request: int, state: State) -> None:
        """Change the state of a request. Raises UnsuccessfulError."""
        self._change(request, self._known(username, request), status=state, ui_friendly_status=_STATES[state])

    def remove(self, username: str, request: int) -> None:
        """Delete a request. Raises UnsuccessfulError."""
        self._known(username, request)
        self._store.run("DELETE FROM access_requests WHERE id=?", request)

    def _known(self, username: str, request: int) -> dict[str, Any]:
        found = abs(request) <= _LARGEST and self._store.row(
            "SELECT body FROM access_requests WHERE username=? AND id=?", username, request
        )
        if not found:
            raise UnsuccessfulError(f"The user {username} has no request {request}.")
        entry: dict[str, Any] = json.loads(found["body"])
        return entry

    def _change(self, request: int, entry: dict[str, Any], **change: str) -> None:
        body = dumps(entry | change | {"updated_timestamp": int(clock.seconds())})
        self._store.run("UPDATE access_requests SET body=? WHERE id=?", body, request)


def _difference(has: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the roles of a wanted report whose grant differs from the current report."""
    granted = {
        role["role_name"]: role["access_granted"]
        for component in has["components"]
        for role in component["component_roles"]
    }
    changed = [
        component
        | {
            "component_roles": [
                role
                for role in component["component_roles"]
                if role["access_granted"] != granted.get(role["role_name"], False)
            ]
        }
        for component in wanted["components"]
    ]
    return {"components": [component for component in changed if component["component_roles"]]}
