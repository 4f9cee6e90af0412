"""Operations of IVCAP (OpenAPI 0.48) that no client calls. Each has one answer, and none has state.

Packages are not among them: ivcap-cli lists and removes those.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.replies import reply
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation
from ivcap_flows.local.ivcap.shapes import TEXT, TIME, URN, Body, record

__all__ = ["OPERATIONS"]

_DASHBOARD: Final = record({"id": TEXT, "uid": TEXT, "title": TEXT, "url": TEXT})
_PROJECT: Final = record({"urn": URN, "name": TEXT})

_OLDER: Final = (
    ("GET", "/1/services", "List services (older form)", "GET /1/services2"),
    ("POST", "/1/services", "Create a service (older form)", "POST /1/services2"),
    ("GET", "/1/services/{id}", "Read a service (older form)", "GET /1/services2/{id}"),
    ("PUT", "/1/services/{id}", "Replace the definition of a service (older form)", "PUT /1/services2/{id}"),
    ("DELETE", "/1/services/{id}", "End a service (older form)", "DELETE /1/services2/{id}"),
    ("GET", "/1/metadata", "List metadata (older form)", "GET /1/aspects"),
    ("POST", "/1/metadata", "Add metadata (older form)", "POST /1/aspects"),
    ("GET", "/1/metadata/{id}", "Read metadata (older form)", "GET /1/aspects/{id}"),
    ("PUT", "/1/metadata/{id}", "Replace metadata (older form)", "PUT /1/aspects"),
    ("DELETE", "/1/metadata/{id}", "Retract metadata (older form)", "DELETE /1/aspects/{id}"),
)
"""Method, path and summary of an operation, and the operation that has taken its place."""
_OF_PROJECTS: Final = (
    ("POST", "/1/project", "Create a project"),
    ("GET", "/1/project/default", "Read the caller's default project"),
    ("PUT", "/1/project/default", "Set the caller's default project"),
    ("GET", "/1/project/{id}", "Read a project"),
    ("PUT", "/1/project/{id}", "Change a project"),
    ("DELETE", "/1/project/{id}", "Delete a project"),
    ("GET", "/1/project/{id}/account", "Read the account of a project"),
    ("PUT", "/1/project/{id}/account", "Set the account of a project"),
    ("GET", "/1/project/{id}/members", "List the members of a project"),
    ("PUT", "/1/project/{id}/memberships/{user}", "Add a member or change its role"),
    ("DELETE", "/1/project/{id}/memberships/{user}", "Remove a member"),
)
_NO_PROJECTS: Final = "The embedded platform has no projects. What you make belongs to your account."


def _no_dashboards(call: Call) -> Response:
    return reply({"items": []})


def _no_projects(call: Call) -> Response:
    return reply({"projects": [], "at-time": clock.stamp(clock.now())})


def _refused(method: str, path: str, summary: str, message: str) -> Operation:
    def refuse(call: Call) -> Response:
        raise errors.not_implemented(message)

    return Operation(method, path, refuse, summary, answers=(501,), missing=message)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/dashboards",
        _no_dashboards,
        "List dashboards",
        LIST,
        answers=(200, 422),
        missing="There are no dashboards.",
        gives=Body(record({"items": {"type": "array", "items": _DASHBOARD}})),
    ),
    Operation(
        "GET",
        "/1/project",
        _no_projects,
        "List the caller's projects",
        LIST,
        answers=(200, 422),
        missing="There are no projects.",
        gives=Body(record({"projects": {"type": "array", "items": _PROJECT}, "at-time": TIME})),
    ),
    *(_refused(*row, _NO_PROJECTS) for row in _OF_PROJECTS),
    *(
        _refused(method, path, summary, f"The embedded platform does not have this older form. Use {instead}.")
        for method, path, summary, instead in _OLDER
    ),
)
