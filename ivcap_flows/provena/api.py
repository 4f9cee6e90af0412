"""Base class of the APIs: one session each, Provena's ways to refuse a request, and its paged lists."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from json import dumps as json_text
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from ivcap_flows.errors import (
    BadRequestError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    PlatformError,
    ProtocolError,
)
from ivcap_flows.http.paging import checked_limit
from ivcap_flows.http.retry import Repeat
from ivcap_flows.http.session import UNSET, Reply, Session
from ivcap_flows.http.status import detail_of, status_error
from ivcap_flows.secrets import logger_of

__all__ = ["Api", "members", "parse", "refusal_of"]

_log = logger_of(__name__)

M = TypeVar("M", bound=BaseModel)

_EXPECTED: Final = (200, 401)

_NO_ID: Final = "study_alternative_id"
"""Free text, despite its name."""


class Api:
    """An API of Provena. The session handles every status except 200 and 401, unless a call lists more for its route.

    `absent` are statuses by which a route says that a thing does not exist; 200 stands for a `status.success` of false.
    `final` are 5xx statuses by which a route refuses a request for good, so the request is not repeated.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def health(self) -> str:
        """Return the API's own message that it is healthy. Raises UnreachableError or UnavailableError if it is not."""
        return str((await self.call("GET", "/", repeat="idempotent")).get("message", ""))

    async def call(
        self,
        method: str,
        path: str,
        *,
        repeat: Repeat,
        params: dict[str, Any] | None = None,
        json: Any = UNSET,
        status_decides: bool = True,
        creates: str | None = None,
        absent: Collection[int] = (),
        final: Collection[int] = (),
    ) -> dict[str, Any]:
        """Send one request and return the reply's JSON object.

        `creates` is the field of the reply that names what was made. Raises the session's errors; NotAuthorizedError
        with `about` ("token" or "item"); NotFoundError for a status in `absent`; BadRequestError for a 200 whose
        `status.success` is false, unless `status_decides` is off. It has `nothing_made` if that field is null.
        """
        reply = await self._reply(method, path, repeat=repeat, params=params, json=json, absent=absent, final=final)
        body = reply.json()
        if not isinstance(body, dict):
            raise reply.violation("is no JSON object")
        if status_decides and (why := refusal_of(body)) is not None:
            if 200 in absent:
                raise _absent(reply, why)
            data = _data(reply, why)
            if creates is not None and body.get(creates) is None:
                data["nothing_made"] = True
            raise BadRequestError(f"{reply.platform} refused {method} {path}: {_ended(why)}", **data)
        return body

    async def call_text(
        self,
        method: str,
        path: str,
        *,
        repeat: Repeat,
        params: dict[str, Any] | None = None,
        final: Collection[int] = (),
    ) -> str:
        """As `call`, for a route that replies with a text."""
        return (await self._reply(method, path, repeat=repeat, params=params, final=final)).text

    async def listed(
        self, path: str, request: dict[str, Any], name: str, limit: int | None = None
    ) -> AsyncIterator[Any]:
        """Yield the items that a list has under `name`, at most `limit`. Each page is requested when it is needed.

        A page may hold fewer items than asked for, even none, while other pages follow. If the server cannot parse some
        items of a page, the page reports a failure but still holds the others; a warning names the items left out.
        Raises ProtocolError if a page names as the next one a page that was read before.
        """
        checked_limit(limit)
        count, key, read = 0, None, set[str]()
        while limit is None or count < limit:
            wanted = request if key is None else request | {"pagination_key": key}
            body = await self.call("POST", path, repeat="idempotent", json=wanted, status_decides=False)
            items = members(body, name, f"list {path}")
            if (why := refusal_of(body)) is not None:
                broken = members(body, "unparsable_items", f"list {path}")
                if not items and not broken:
                    raise BadRequestError(f"Provena refused POST {path}: {_ended(why)}", **_of_list(path, why))
                _log.warning("Provena's list %s leaves out what Provena cannot read itself: %s", path, _ended(why))
            for item in items[: None if limit is None else limit - count]:
                yield item
            count += len(items)
            key = body.get("pagination_key")
            if not key:
                return
            # A key is an object.
            if (named := json_text(key, sort_keys=True)) in read:
                fault = "names a page as the next that was read before"
                raise ProtocolError(f"Provena's list {path} {fault}.", **_of_list(path, fault))
            read.add(named)

    async def _reply(
        self,
        method: str,
        path: str,
        *,
        repeat: Repeat,
        params: dict[str, Any] | None = None,
        json: Any = UNSET,
        absent: Collection[int] = (),
        final: Collection[int] = (),
    ) -> Reply:
        _need_ids(f"{method} {path}", params, json)
        reply = await self._session.request(
            method,
            path,
            repeat=repeat,
            params=params,
            json=json,
            expect=(*_EXPECTED, *absent, *final),
        )
        if reply.status == 401:
            raise _not_authorized(reply)
        if reply.status in absent and reply.status != 200:
            raise _absent(reply, detail_of(reply.body) or "no reason given")
        if reply.status != 200:
            raise _as_status(reply)
        return reply


def _not_authorized(reply: Reply) -> NotAuthorizedError:
    """Return the error for a 401. A Bearer challenge means the token or its roles; otherwise the item or its lock."""
    why = detail_of(reply.body) or "no reason given"
    about = "token" if reply.headers.get("www-authenticate", "").lower().startswith("bearer") else "item"
    step = {
        "token": "Renew PROVENA_OFFLINE_TOKEN, or ask for the role that the text names.",
        "item": "The token is good, but the item is locked or not open to its user; ask its owner.",
    }[about]
    message = f"{reply.platform} denied {reply.method} {reply.path}: {_ended(why)} {step}"
    return NotAuthorizedError(message, **_data(reply, why), about=about)


def _absent(reply: Reply, why: str) -> NotFoundError:
    message = f"{reply.platform} found nothing for {reply.method} {reply.path}: {_ended(why)}"
    return NotFoundError(message, **_data(reply, why))


def _as_status(reply: Reply) -> PlatformError:
    return status_error(
        platform=reply.platform,
        method=reply.method,
        path=reply.path,
        status=reply.status,
        headers=reply.headers,
        body=reply.body,
    )


def _need_ids(request: str, *given: Any) -> None:
    """Raise InputError for an empty id. Provena replies 500 to one, which would look like a server that is down."""
    named = [item for part in given if isinstance(part, dict) for item in part.items()]
    for name, value in named:
        is_id = name == "id" or (name.endswith("_id") and name != _NO_ID)
        if is_id and isinstance(value, str) and not value.strip():
            raise InputError(f"{name} is empty, and {request} of Provena needs one. Give the id of what you mean.")


def refusal_of(body: dict[str, Any]) -> str | None:
    """Return, on one line, why a body with a `status` reports a failure; None if it reports none."""
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


def _of_list(path: str, detail: str) -> dict[str, Any]:
    return {"platform": "Provena", "method": "POST", "path": path, "status": 200, "detail": detail, "sent": True}


def parse(model: type[M], value: Any, what: str) -> M:
    """Read a value as `model`. Raises ProtocolError with the names of the faulty fields, never their values."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ProtocolError(f"Provena's {what} is not as its API describes it: {places}.", detail=places) from None


def members(body: dict[str, Any], name: str, what: str) -> list[Any]:
    """Return the list under a name, empty if it is null or missing. Raises ProtocolError for anything else."""
    found = body.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ProtocolError(f"Provena's {what} is not as its API describes it: {name} is no list.", detail=name)
    return found
