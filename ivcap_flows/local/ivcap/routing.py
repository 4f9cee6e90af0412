"""One table of operations. It routes, checks query parameters and tokens, and gives the OpenAPI document.

A plain function runs in the state thread, the only one that uses the database. An `async` function runs on the loop and
uses the state through `call.state(function, ...)`.
"""

from __future__ import annotations

import inspect
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import jwt
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from ivcap_flows.local import clock
from ivcap_flows.local.ids import as_urn
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.shapes import Body
from ivcap_flows.local.nesting import NestingError, loads
from ivcap_flows.local.tokens import Principal

if TYPE_CHECKING:
    from ivcap_flows.local.ivcap.platform import Platform

__all__ = ["AT_TIME", "LIST", "Call", "Operation", "Param", "on_http_error", "on_problem", "route"]

T = TypeVar("T")
Kind = Literal["string", "integer", "boolean", "date-time"]

_MAX_BODY: Final = 64 * 1024 * 1024
_HOST: Final = re.compile(r"[0-9A-Za-z.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_SUSPECT: Final = re.compile(rb"\\u|[eE]\+?\d{3}|\d{200}")
"""In JSON: an escape that may be half of a surrogate pair, or a number that may be too large for a float."""
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Param:
    """A query parameter, or a header (for the description only).

    `least` is the minimum of an integer and `most` its cap; `pattern` describes a text.
    """

    name: str
    kind: Kind = "string"
    default: Any = None
    required: bool = False
    least: int | None = None
    most: int | None = None
    description: str = ""
    pattern: str = ""

    def read(self, text: str | None) -> Any:
        """Read the value of the parameter. Raises Problem 422."""
        if text is None:
            if self.required:
                raise errors.parameter(self.name, f"The query parameter {self.name} is required.")
            return self.default
        try:
            if self.kind == "integer":
                value = int(text) if re.fullmatch(r"-?\d{1,40}", text) else None
                if value is None or (self.least is not None and value < self.least):
                    raise ValueError
                return value if self.most is None else min(value, self.most)
            if self.kind == "boolean":
                return _TRUTH[text.lower()]
            if self.kind == "date-time":
                return clock.parse(text)
        except (ValueError, KeyError, OverflowError):
            least = "" if self.least is None else f" of at least {self.least}"
            raise errors.parameter(self.name, f"{self.name} must be of type {self.kind}{least}.", text) from None
        if self.required and not text:
            raise errors.parameter(self.name, f"The query parameter {self.name} is empty.")
        return text


AT_TIME: Final = Param("at-time", "date-time", description="State of the resources at this time.")
LIST: Final = (
    Param("limit", "integer", 10, least=1, most=50, description="Items in a page."),
    Param("page", description="Cursor of a `next` link; every parameter but `limit` is then ignored."),
    Param("filter", default="", description="For instance `name ~= 'x%' && status == 'ready'`."),
    Param("order-by", description="Columns, separated by commas."),
    Param("order-desc", "boolean", True),
    AT_TIME,
)


@dataclass(frozen=True)
class Call:
    """One request, as a handler gets it."""

    request: Request
    platform: Platform
    who: Principal
    query: Mapping[str, Any]
    body: bytes = b""

    @property
    def base(self) -> str:
        """The URL of this server as the caller wrote it, without a trailing slash."""
        host = self.header("Host") or ""
        if not _HOST.fullmatch(host):
            name, port = self.request.scope.get("server") or ("127.0.0.1", 80)
            host = f"{name}:{port}"
        return f"{self.request.url.scheme}://{host}"

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def id(self, noun: str, name: str = "id") -> str:
        """Return the URN that the path names. Raises Problem 404 if it cannot be one."""
        text = self.request.path_params[name]
        urn = as_urn(noun, text)
        if urn is None:
            raise errors.not_found(noun, text[:200])
        return urn

    def json(self) -> Any:
        """Read the body as JSON. Raises Problem 400."""
        return parse_json(self.body)

    def object(self) -> dict[str, Any]:
        value = self.json()
        if not isinstance(value, dict):
            raise errors.bad_request("The body must be a JSON object.")
        return value

    async def state(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        return await self.platform.thread.run(function, *arguments, **named)

    @property
    def job(self) -> str | None:
        """The job for which the call is made, or None."""
        return self.who.job or self.header("Ivcap-Job-Id")


Handler = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """A row of the table.

    With `body`, a (JSON) body is read before the handler runs. `missing` describes what this operation lacks of the
    real platform's behaviour; it is empty for a complete one. Only for the description: `headers` that the handler
    reads, what a request `takes`, what a success `gives` (by status, if they differ), and the headers that a reply
    `tells`.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    query: Sequence[Param] = ()
    body: bool = False
    public: bool = False
    answers: Sequence[int] = field(default=(200,))
    missing: str = ""
    headers: Sequence[Param] = ()
    takes: Body | None = None
    gives: Body | Mapping[int, Body] | None = None
    tells: Sequence[str] = ()

    def read_query(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Read the values of the query parameters.

        A cursor contains the whole query, so with a cursor only `limit` counts. Raises Problem 422.
        """
        if given.get("page") and any(param.name == "page" for param in self.query):
            given = {name: given[name] for name in ("page", "limit") if name in given}
        return {param.name: param.read(given.get(param.name)) for param in self.query}


def parse_json(data: bytes) -> Any:
    """Read the JSON of a request. Raises Problem 400, also for numbers and characters that JSON does not have."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not a JSON number")

    try:
        # Python also accepts UTF-16, half of a surrogate pair, and numbers too large for a float.
        if b"\0" in data or not data.decode():
            raise ValueError("no UTF-8")
        value = loads(data, parse_constant=refuse)
        if _SUSPECT.search(data):
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except NestingError as error:
        raise errors.bad_request(f"{error}.") from None
    except ValueError as error:
        raise errors.bad_request(
            f"The body is not JSON: {type(error).__name__} at or before byte {len(data)}."
        ) from None
    return value


async def _read_body(request: Request) -> bytes:
    too_large = errors.too_large(f"A JSON body may have at most {_MAX_BODY} bytes.")
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > _MAX_BODY:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_BODY:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _caller(platform: Platform, request: Request) -> Principal:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise errors.not_authorized()
    try:
        return platform.tokens.verify(token.strip())
    except jwt.ExpiredSignatureError:
        raise errors.not_authorized("The bearer token has expired.", invalid=True) from None
    except (jwt.InvalidTokenError, ValueError):
        raise errors.not_authorized("The bearer token is not valid here.", invalid=True) from None


_NOBODY: Final = Principal("", "", "", "")


def route(platform: Platform, operation: Operation) -> Route:
    handler: Any = operation.handler
    on_loop = inspect.iscoroutinefunction(handler)

    async def endpoint(request: Request) -> Response:
        try:
            who = _NOBODY if operation.public else _caller(platform, request)
            query = operation.read_query(request.query_params)
            body = await _read_body(request) if operation.body else b""
            call = Call(request, platform, who, query, body)
            response: Response = await handler(call) if on_loop else await platform.thread.run(handler, call)
        except errors.Problem as problem:
            return problem.response()
        except ClientDisconnect:
            return Response(status_code=499)
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            return errors.full("The disk of the embedded platform is full; this request stored nothing.").response()
        return response

    # Starlette adds HEAD to every GET; in this table each method has its own row.
    made = Route(operation.path, endpoint, methods=[operation.method], name=f"{operation.method} {operation.path}")
    made.methods = {operation.method}
    return made


async def on_problem(request: Request, error: Exception) -> Response:
    return errors.Problem(
        500, "fault", {"message": f"The embedded platform failed: {type(error).__name__}."}
    ).response()


def _methods(request: Request) -> set[str]:
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    path = next((route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE), None)
    return {method for route in routes if route.path == path for method in route.methods or ()}


async def on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return errors.not_found("resource", request.url.path[:200]).response()
    message = error.detail if isinstance(error, HTTPException) else "failure"
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 405:
        # Each method has its own route, which knows only that method.
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return errors.Problem(status, "bad-request", {"message": f"{message}."}, headers).response()
