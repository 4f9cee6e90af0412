"""From an HTTP request to a checked call: token, role, query and body, in the order in which Provena checks them.

A handler is a plain function that runs in a thread within one transaction: what it changed is kept if it returns, and
nothing is if it raises.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ivcap_flows.local.nesting import loads
from ivcap_flows.local.provena.keycloak.state import Realm, TokenError
from ivcap_flows.local.provena.shape import Fault, Object, Shape
from ivcap_flows.local.provena.store import Store
from ivcap_flows.local.provena.users import User

__all__ = ["Api", "Call", "CrashError", "Desk", "Level", "Refusal", "denied", "http_error", "invalid", "status"]

Level = Literal["public", "general", "read", "write", "admin"]
_STACK: dict[Level, tuple[str, ...]] = {
    "read": ("read",),
    "write": ("read", "write"),
    "admin": ("read", "write", "admin"),
}
_BEARER = {"WWW-Authenticate": "Bearer"}
_NOBODY = User("", None, frozenset())


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """An answer other than 200, with its `detail`."""

    def __init__(self, status: int, detail: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class CrashError(Exception):
    """What makes the real server answer 500 in plain text."""


def invalid(detail: str) -> Refusal:
    """A 400: a rule that the handler found broken."""
    return Refusal(400, detail)


def denied(detail: str) -> Refusal:
    """A 401 about an item, which unlike one about the token carries no `WWW-Authenticate`."""
    return Refusal(401, detail)


def status(success: bool, details: str) -> dict[str, Any]:
    """The `status` of most bodies."""
    return {"success": success, "details": details}


@dataclass(frozen=True)
class Call:
    """A checked request."""

    user: User
    query: dict[str, Any]
    body: Any
    request: Request
    raw: bytes

    @property
    def token(self) -> str:
        """The bearer token itself, which the access checks echo."""
        return self.request.headers.get("authorization", "")[len("Bearer ") :]


@dataclass(frozen=True)
class Desk:
    """What every API needs to answer: who is asking, the state, and a call to make after a change."""

    realm: Realm
    store: Store
    changed: Callable[[], None]


Handler = Callable[[Call], Any]


@dataclass
class Api:
    """One API of Provena: its routes, and the roles that open them.

    `roles` is the stem of its role names. With `single_role` a level needs only its own role, else the lower ones too.
    """

    desk: Desk
    title: str
    roles: str
    single_role: bool = False
    routes: list[BaseRoute] = field(default_factory=list)
    _paths: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.get("/", "public", lambda call: {"message": "Health check successful."})
        self.get("/openapi.json", "public", lambda call: self._document(), hidden=True)
        self.get("/admin/sentry-debug", "admin", _crash)
        self.get("/admin/config", "admin", lambda call: PlainTextResponse("STAGE=EMBEDDED\n"))

    def get(self, path: str, level: Level, handler: Handler, query: Object | None = None, **more: Any) -> None:
        """Declare a GET route."""
        self.on("GET", path, level, handler, query=query, **more)

    def post(self, path: str, level: Level, handler: Handler, body: Shape | None = None, **more: Any) -> None:
        """Declare a POST route."""
        self.on("POST", path, level, handler, body=body, **more)

    def on(
        self,
        method: str,
        path: str,
        level: Level,
        handler: Handler,
        *,
        query: Object | None = None,
        body: Shape | None = None,
        roles: str | None = None,
        hidden: bool = False,
    ) -> None:
        """Declare a route. `roles` is another stem than the API's own; `hidden` keeps it out of the OpenAPI text."""

        async def answer(request: Request) -> Response:
            raw = await request.body()
            try:
                return await run_in_threadpool(self._answer, request, raw, level, roles, query, body, handler)
            except (CrashError, sqlite3.OperationalError):
                return PlainTextResponse("Internal Server Error", 500)
            except Refusal as refusal:
                return JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)
            finally:
                if method != "GET":
                    self.desk.changed()

        self.routes.append(Route(path, answer, methods=[method]))
        if not hidden:
            self._paths.setdefault(path, {})[method.lower()] = _operation(query, body)

    def check_access(self) -> None:
        """Declare the routes that tell a caller which levels it has."""
        levels: tuple[Level, ...] = ("general", "read", "write", "admin")
        for level in levels:
            self.get(f"/check-access/check-{level}-access", level, _whoami)

    def _answer(
        self,
        request: Request,
        raw: bytes,
        level: Level,
        roles: str | None,
        query: Object | None,
        body: Shape | None,
        handler: Handler,
    ) -> Response:
        user = _NOBODY if level == "public" else self._user(request, level, roles or self.roles)
        faults: list[Fault] = []
        params = (query or Object()).read(dict(request.query_params), ("query",), faults)
        content = _body(body, request, raw, faults)
        if faults:
            raise Refusal(422, faults)
        with self.desk.store.transaction():
            found = handler(Call(user, params, content, request, raw))
        return found if isinstance(found, Response) else JSONResponse(found)

    def _user(self, request: Request, level: Level, stem: str) -> User:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "Not authenticated", _BEARER)
        try:
            user = self.desk.realm.bearer(token)
        except TokenError as error:
            raise Refusal(401, str(error), _BEARER) from error
        steps = (level,) if self.single_role and level in _STACK else _STACK.get(level, ())
        if not user.roles.issuperset(f"{stem}-{step}" for step in steps):
            raise Refusal(401, f"The user lacks a role that this needs: {stem}-{level}.", _BEARER)
        return user

    def _document(self) -> dict[str, Any]:
        return {"openapi": "3.0.2", "info": {"title": self.title, "version": "1"}, "paths": self._paths}


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
        value = loads(raw)
    except json.JSONDecodeError as error:
        ctx = {"msg": error.msg, "doc": error.doc, "pos": error.pos, "lineno": error.lineno, "colno": error.colno}
        faults.append({"loc": ["body", error.pos], "msg": str(error), "type": "value_error.jsondecode", "ctx": ctx})
        return None
    except ValueError as error:
        raise Refusal(400, "There was an error parsing the body") from error
    return shape.read(value, ("body",), faults)


def _operation(query: Object | None, body: Shape | None) -> dict[str, Any]:
    operation: dict[str, Any] = {"responses": {"200": {"description": "Successful Response"}}}
    if query:
        operation["parameters"] = [
            {"name": name, "in": "query", "required": known.required, "schema": known.shape.schema()}
            for name, known in query.fields.items()
        ]
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body.schema()}}}
    return operation


async def http_error(request: Request, error: Exception) -> Response:
    """An unknown path or a wrong method, in FastAPI's form."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
