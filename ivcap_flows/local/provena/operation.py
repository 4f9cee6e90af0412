"""What an API offers: its operations, and the checked call that each one's handler gets."""

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
        """The bearer token itself, which the access checks echo."""
        return self.request.headers.get("authorization", "")[len("Bearer ") :]


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Operation:
    """A route: what it checks before its handler, and what the OpenAPI text and the reference say of it.

    `roles` is another stem of role names than the API's own. `upload` is the file of a multipart form that stands in
    the place of a body. `gives` names what the object of a success always holds, or is the media type of what is none.
    `fails` says when the real server answers 500, and so this one too; `missing` what it lacks of the real one.
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
