"""The operations of an API, and the checked call that their handlers get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request

from ivcap_flows.local.provena.shape import Object, Shape
from ivcap_flows.local.provena.users import User

__all__ = ["Call", "Handler", "Level", "Operation"]

Level = Literal["public", "general", "read", "write", "admin"]


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
        """The bearer token, which the access checks return."""
        return self.request.headers.get("authorization", "")[len("Bearer ") :]


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Operation:
    """A route: its checks before the handler, and its description for the OpenAPI text and the reference.

    `roles` is a stem of role names other than the API's own. `upload` is the file of a multipart form, for a route
    without a body. `gives` names the fields that the object of a success always has, or is a media type if it is not an
    object. `fails` describes when the real server replies 500, and so does this one; `missing` what it lacks of the
    real one.
    """

    method: str
    path: str
    level: Level
    handler: Handler
    query: Object | None = None
    body: Shape | None = None
    roles: str | None = None
    upload: str | None = None
    gives: tuple[str, ...] | str = ("status",)
    refuses: tuple[int, ...] = (400,)
    fails: str = ""
    missing: str = ""
    hidden: bool = False
