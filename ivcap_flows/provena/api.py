"""What the five APIs share: one session each, and Provena's own manners of refusing."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from ivcap_flows.errors import BadRequestError, NotAuthorizedError, ProtocolError
from ivcap_flows.http.retry import Repeat
from ivcap_flows.http.session import UNSET, Reply, Session
from ivcap_flows.http.status import detail_of

__all__ = ["Api", "parse"]

M = TypeVar("M", bound=BaseModel)

_EXPECTED: Final = (200, 401)


class Api:
    """An API of Provena. All but 200 and 401 is the session's to judge."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def call(
        self,
        method: str,
        path: str,
        *,
        repeat: Repeat,
        params: dict[str, Any] | None = None,
        json: Any = UNSET,
        status_decides: bool = True,
    ) -> dict[str, Any]:
        """Send one request and return the reply's JSON object.

        Raises the session's errors; NotAuthorizedError with `about` ("token" or "item"); BadRequestError for a 200
        whose `status.success` is false, unless `status_decides` is off.
        """
        reply = await self._session.request(method, path, repeat=repeat, params=params, json=json, expect=_EXPECTED)
        if reply.status == 401:
            raise _not_authorized(reply)
        body = reply.json()
        if not isinstance(body, dict):
            raise reply.violation("is no JSON object")
        if status_decides and (why := _refusal(body)) is not None:
            raise BadRequestError(f"{reply.platform} refused {method} {path}: {_ended(why)}", **_data(reply, why))
        return body


def _not_authorized(reply: Reply) -> NotAuthorizedError:
    """Failures of the token and its roles carry a Bearer challenge; those of one item, or its lock, do not."""
    why = detail_of(reply.body) or "no reason given"
    about = "token" if reply.headers.get("www-authenticate", "").lower().startswith("bearer") else "item"
    step = {
        "token": "Renew PROVENA_OFFLINE_TOKEN, or ask for the role that the text names.",
        "item": "The token is good, but the item is locked or not open to its user; ask its owner.",
    }[about]
    message = f"{reply.platform} denied {reply.method} {reply.path}: {_ended(why)} {step}"
    return NotAuthorizedError(message, **_data(reply, why), about=about)


def _refusal(body: dict[str, Any]) -> str | None:
    status = body.get("status")
    if not isinstance(status, dict) or status.get("success") is not False:
        return None
    return " ".join(str(status.get("details") or "no reason given").split())


def _ended(sentence: str) -> str:
    return sentence.rstrip(". ") + "."


def _data(reply: Reply, detail: str) -> dict[str, Any]:
    return {
        "platform": reply.platform,
        "method": reply.method,
        "path": reply.path,
        "status": reply.status,
        "detail": detail,
        "sent": True,
    }


def parse(model: type[M], value: Any, what: str) -> M:
    """The value as `model`; raises ProtocolError that names the fields in the way, never their values."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ProtocolError(f"Provena's {what} is not as its API describes it: {places}.", detail=places) from None
