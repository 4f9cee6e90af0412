"""Turn an HTTP request into a checked call: token, role, query and body, in the order in which Provena checks them.

A handler is a plain function that runs in a thread within one transaction. Its changes are kept if it returns, and
undone if it raises.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ivcap_flows.local.nesting import loads
from ivcap_flows.local.provena.keycloak.state import Realm, TokenError
from ivcap_flows.local.provena.openapi import document
from ivcap_flows.local.provena.operation import Call, Handler, Level, Operation
from ivcap_flows.local.provena.shape import EMPTY_ID, FLAG, Fault, Object, Shape, given
from ivcap_flows.local.provena.store import Store, dumps
from ivcap_flows.local.provena.users import User

__all__ = [
    "Api",
    "CrashError",
    "Desk",
    "Refusal",
    "denied",
    "http_error",
    "invalid",
    "status",
]

_STACK: dict[Level, tuple[str, ...]] = {
    "read": ("read",),
    "write": ("read", "write"),
    "admin": ("read", "write", "admin"),
}
_BEARER = {"WWW-Authenticate": "Bearer"}
_NOBODY = User("", None, frozenset())


class Refusal(Exception):  # noqa: N818 - a reply, not a failure
    """A reply with another status than 200, with its `detail`."""

    def __init__(self, status: int, detail: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class CrashError(Exception):
    """The real server would reply 500 in plain text."""


def invalid(detail: str) -> Refusal:
    """Return a 400 refusal: a rule of the handler is broken."""
    return Refusal(400, detail)


def denied(detail: str) -> Refusal:
    """Return a 401 refusal about an item; unlike one about the token, it has no `WWW-Authenticate`."""
    return Refusal(401, detail)


def status(success: bool, details: str) -> dict[str, Any]:
    """Return the `status` of most bodies."""
    return {"success": success, "details": details}


@dataclass(frozen=True)
class Desk:
    """The parts that every API needs: the realm, the state, and a function to call after a change."""

    realm: Realm
    store: Store
    changed: Callable[[], None]


_PLAIN = "text/plain"


@dataclass
class Api:
    """One API of Provena: its operations, and the roles that they need.

    `roles` is the stem of its role names. With `single_role` a level needs only its own role, otherwise the lower ones
    too.
    """

    desk: Desk
    title: str
    roles: str
    single_role: bool = False
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.get("/", "public", lambda call: {"message": "Health check successful."}, gives=("message",))
        self.get("/openapi.json", "public", self._document, hidden=True)
        self.get("/admin/sentry-debug", "admin", _crash, fails="Always; this is its purpose.")
        self.get(
            "/admin/config",
            "admin",
            lambda call: PlainTextResponse("STAGE=EMBEDDED\n"),
            Object({"required_only": given(FLAG, True)}),
            gives=_PLAIN,
            missing="Its only variable is the name of the stage.",
        )

    def get(self, path: str, level: Level, handler: Handler, query: Object | None = None, **more: Any) -> None:
        """Declare a GET route."""
        self.on("GET", path, level, handler, query=query, **more)

    def post(self, path: str, level: Level, handler: Handler, body: Shape | None = None, **more: Any) -> None:
        """Declare a POST route."""
        self.on("POST", path, level, handler, body=body, **more)

    def on(self, method: str, path: str, level: Level, handler: Handler, **more: Any) -> None:
        """Declare a route; `more` are further fields of its Operation."""
        self.operations.append(Operation(method, path, level, handler, **more))

    def needs(self, operation: Operation) -> list[str]:
        """Return the roles that a user needs for an operation."""
        steps = _STACK.get(operation.level, ())
        return [f"{operation.roles or self.roles}-{step}" for step in (steps[-1:] if self.single_role else steps)]

    @property
    def routes(self) -> list[BaseRoute]:
        """The operations, as routes to mount."""
        paths: dict[str, dict[str, Operation]] = {}
        for operation in self.operations:
            paths.setdefault(operation.path, {})[operation.method] = operation
        return [self._route(path, operations) for path, operations in paths.items()]

    def _route(self, path: str, operations: dict[str, Operation]) -> Route:
        async def answer(request: Request) -> Response:
            operation = operations[request.method]
            try:
                raw = await request.body()
                return await run_in_threadpool(self._answer, operation, request, raw)
            except CrashError:
                return PlainTextResponse("Internal Server Error", 500)
            except sqlite3.OperationalError as error:
                if "full" not in str(error):
                    raise
                return PlainTextResponse("Internal Server Error", 500)
            except Refusal as refusal:
                return JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)
            finally:
                if operation.method != "GET":
                    self.desk.changed()

        route = Route(path, answer, methods=list(operations))
        # FastAPI, unlike Starlette, adds no HEAD to a GET.
        route.methods = set(operations)
        return route

    def check_access(self) -> None:
        """Declare the routes that tell a caller which levels it has."""
        levels: tuple[Level, ...] = ("general", "read", "write", "admin")
        for level in levels:
            self.whoami(f"/check-access/check-{level}-access", level)

    def whoami(self, path: str, level: Level) -> None:
        """Declare a route that tells a caller of this level its identity."""
        self.get(path, level, _whoami, gives=("username", "email", "roles", "access_token"))

    def _answer(self, operation: Operation, request: Request, raw: bytes) -> Response:
        user = _NOBODY if operation.level == "public" else self._user(request, operation)
        faults: list[Fault] = []
        params = (operation.query or Object()).read(dict(request.query_params), ("query",), faults)
        content = _body(operation.body, request, raw, faults)
        if all(fault["type"] == EMPTY_ID for fault in faults) and faults:
            raise invalid(faults[0]["msg"])
        if faults:
            raise Refusal(422, faults)
        with self.desk.store.transaction():
            found = operation.handler(Call(user, params, content, request, raw))
        return found if isinstance(found, Response) else JSONResponse(found)

    def _user(self, request: Request, operation: Operation) -> User:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "Not authenticated", _BEARER)
        try:
            user = self.desk.realm.bearer(token)
        except TokenError as error:
            raise Refusal(401, str(error), _BEARER) from error
        if not user.roles.issuperset(self.needs(operation)):
            stem = operation.roles or self.roles
            raise Refusal(401, f"The user lacks a role that this needs: {stem}-{operation.level}.", _BEARER)
        return user

    def _document(self, call: Call) -> dict[str, Any]:
        return document(self.title, self.operations, call.request.scope.get("root_path", ""))


def _crash(call: Call) -> None:
    raise CrashError


def _whoami(call: Call) -> dict[str, Any]:
    user = call.user
    return {
        "username": user.username,
        "email": user.email,
        "roles": sorted(user.roles),
        "access_token": call.token,
    }


def _body(shape: Shape | None, request: Request, raw: bytes, faults: list[Fault]) -> Any:
    if shape is None:
        return None
    if not raw:
        faults.append({"loc": ["body"], "msg": "field required", "type": "value_error.missing"})
        return None
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        faults.append({"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"})
        return None
    try:
        raw.decode()
        value = loads(raw)
        # Half of a surrogate pair, which an escape can produce, cannot be stored as text.
        if b"\\u" in raw:
            dumps(value).encode()
    except json.JSONDecodeError as error:
        ctx = {"msg": error.msg, "doc": error.doc, "pos": error.pos, "lineno": error.lineno, "colno": error.colno}
        faults.append({"loc": ["body", error.pos], "msg": str(error), "type": "value_error.jsondecode", "ctx": ctx})
        return None
    except ValueError as error:
        raise Refusal(400, "There was an error parsing the body") from error
    return shape.read(value, ("body",), faults)


async def http_error(request: Request, error: Exception) -> Response:
    """Reply to an unknown path or a wrong method, in FastAPI's form."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
