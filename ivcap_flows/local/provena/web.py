"""The APIs of Provena, each a FastAPI application: its roles, the transaction around a handler, and its refusals.

A handler is a plain function. FastAPI calls it in a thread, and it runs within one transaction: its changes are kept if
it returns, and undone if it raises.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.requests import ClientDisconnect

from ivcap_flows.local.nesting import loads
from ivcap_flows.local.provena.faults import refuse_faults
from ivcap_flows.local.provena.keycloak.state import Realm, TokenError
from ivcap_flows.local.provena.store import Store, dumps
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.refusals import caller_gone

__all__ = ["Api", "CrashError", "Desk", "denied", "fails", "invalid", "status"]

_Level = Literal["general", "read", "write", "admin"]
_BEARER: Final = HTTPBearer(auto_error=False)
_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
_ERROR: Final = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
        }
    }
}
_CHALLENGED: Final = {"headers": {"WWW-Authenticate": {"schema": {"type": "string"}}}}


class CrashError(Exception):
    """The real server would reply 500 in plain text."""


def invalid(detail: str) -> HTTPException:
    """Return a 400 refusal: a rule of the handler is broken."""
    return HTTPException(400, detail)


def denied(detail: str) -> HTTPException:
    """Return a 401 refusal about an item; unlike one about the token, it has no `WWW-Authenticate`."""
    return HTTPException(401, detail)


def status(success: bool, details: str) -> dict[str, Any]:
    """Return the `status` of most bodies."""
    return {"success": success, "details": details}


def fails(when: str) -> dict[int | str, dict[str, Any]]:
    """Return, for `responses` of a route, when the real server replies 500, and so does this one."""
    content = _ERROR["content"] | {"text/plain": {"schema": {"type": "string"}}}
    return {500: {"description": when, "content": content}}


@dataclass(frozen=True)
class Desk:
    """The parts that every API needs: the realm, the state, and a function to call after a change."""

    realm: Realm
    store: Store
    changed: Callable[[], None]


class Api(FastAPI):
    """One API of Provena.

    `general`, `read`, `write` and `admin` are the dependencies of handlers for a user of that level: `user: User =
    api.write`. `roles` is the stem of the role names. With `single_role` a level needs only its own role, otherwise the
    lower ones too. The `description` of a route says how it differs from the real one.
    """

    def __init__(self, desk: Desk, title: str, roles: str, *, single_role: bool = False) -> None:
        super().__init__(
            title=title,
            version="1",
            docs_url=None,
            redoc_url=None,
            strict_content_type=False,
            responses={
                400: {"description": "Bad Request", **_ERROR},
                401: {"description": "Unauthorized", **_CHALLENGED, **_ERROR},
                403: {"description": "Forbidden", **_ERROR},
            },
            exception_handlers={
                RequestValidationError: refuse_faults,
                CrashError: _crashed,
                sqlite3.OperationalError: _full,
                ClientDisconnect: caller_gone,
            },
        )
        self.desk, self._roles, self._single_role = desk, roles, single_role
        self.router.route_class = _route_class(desk)
        self.general = self.needs("general")
        self.read, self.write, self.admin = self.needs("read"), self.needs("write"), self.needs("admin")
        self._every_api_has()

    def needs(self, level: _Level, roles: str | None = None) -> Any:
        """Return the dependency on a user of this level, by the role names of another stem."""
        steps: dict[_Level, tuple[str, ...]] = {
            "general": (),
            "read": ("read",),
            "write": ("read", "write"),
            "admin": ("read", "write", "admin"),
        }
        wanted = steps[level][-1:] if self._single_role else steps[level]
        return Security(self._user, scopes=[f"{roles or self._roles}-{step}" for step in wanted])

    async def _user(
        self, needs: SecurityScopes, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> User:
        if bearer is None or not bearer.credentials:
            raise HTTPException(401, "Not authenticated", _CHALLENGE)
        try:
            user = self.desk.realm.bearer(bearer.credentials)
        except TokenError as error:
            raise HTTPException(401, str(error), _CHALLENGE) from error
        if lacking := set(needs.scopes) - user.roles:
            names = ", ".join(sorted(lacking))
            raise HTTPException(401, f"The user lacks a role that this needs: {names}.", _CHALLENGE)
        return user

    def _every_api_has(self) -> None:
        @self.get("/")
        def health() -> Any:
            return {"message": "Health check successful."}

        @self.get("/admin/sentry-debug", responses=fails("Always; this is its purpose."))
        def sentry_debug(user: User = self.admin) -> Any:
            raise CrashError

        @self.get(
            "/admin/config",
            description="Its only variable is the name of the stage.",
            response_class=PlainTextResponse,
        )
        def config(required_only: bool = True, user: User = self.admin) -> Any:
            return PlainTextResponse("STAGE=EMBEDDED\n")

    def check_access(self) -> None:
        """Declare the routes that tell a caller which levels it has."""
        levels: tuple[_Level, ...] = ("general", "read", "write", "admin")
        for level in levels:
            self.whoami(f"/check-access/check-{level}-access", self.needs(level))

    def whoami(self, path: str, needs: Any) -> None:
        """Declare a route that tells a caller its identity."""

        @self.get(path)
        def whoami(bearer: Annotated[HTTPAuthorizationCredentials, Depends(_BEARER)], user: User = needs) -> Any:
            return {
                "username": user.username,
                "email": user.email,
                "roles": sorted(user.roles),
                "access_token": bearer.credentials,
            }


class _Request(Request):
    async def json(self) -> Any:
        body = await self.body()
        body.decode()
        value = loads(body)
        # Half of a surrogate pair, which an escape can produce, cannot be stored as text.
        if b"\\u" in body:
            dumps(value).encode()
        return value


def _route_class(desk: Desk) -> type[APIRoute]:
    class Route(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
            @functools.wraps(endpoint)
            def handler(**arguments: Any) -> Response:
                with desk.store.transaction():
                    found = endpoint(**arguments)
                return found if isinstance(found, Response) else JSONResponse(found)

            # The declared type is for readers. FastAPI would check and convert each reply by it.
            super().__init__(path, handler, **more | {"response_model": None})

        def get_route_handler(self) -> Callable[[Request], Any]:
            answer = super().get_route_handler()

            async def kept(request: Request) -> Response:
                request = _Request(request.scope, request.receive)
                # FastAPI would take a caller who is gone for a body that it cannot parse.
                await request.body()
                try:
                    return await answer(request)
                finally:
                    if request.method != "GET":
                        desk.changed()

            return kept

    return Route


async def _crashed(request: Request, error: Exception) -> Response:
    return PlainTextResponse("Internal Server Error", 500)


async def _full(request: Request, error: sqlite3.OperationalError) -> Response:
    if "full" not in str(error):
        raise error
    return await _crashed(request, error)
