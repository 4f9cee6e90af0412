"""`/1/search` (IVCAP OpenAPI 0.48).

The document leaves the items open ("any", with texts as its example). Here an item is the value of `query`, or for a
`query` with several terms the list of their values. ivcap-client returns items unchanged (ivcap_client/ivcap.py).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.replies import compact, link, reply
from ivcap_flows.local.ivcap.routing import AT_TIME, Call, Operation, Param
from ivcap_flows.local.ivcap.search.program import ProgramError
from ivcap_flows.local.ivcap.shapes import Body, listed

__all__ = ["OPERATIONS"]

_DATALOG: Final = "application/datalog+mangle"
_LARGEST: Final = 256 * 1024
"""Maximum bytes of a body; the limit on a program's characters may be lower."""


def _program(call: Call) -> str:
    """Return the text of the program. A JSON body may contain it as a JSON string. Raises Problem 400, 413, 415."""
    media = (call.header("Content-Type") or "application/json").partition(";")[0].strip().lower()
    if media not in (_DATALOG, "application/json"):
        raise errors.unsupported(f"A search is of type {_DATALOG}, not {media[:100]}.")
    if len(call.body) > _LARGEST:
        raise errors.too_large(f"A search may have at most {_LARGEST} bytes.")
    try:
        text = call.body.decode()
        if media == "application/json" and text.lstrip().startswith('"'):
            text = json.loads(text)
    except ValueError:
        raise errors.bad_request("The body is not the text of a program in UTF-8.") from None
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def search(call: Call) -> Response:
    text = _program(call)
    question: dict[str, Any] = {"list": "search", "path": _digest(text), "begin": 0, "last": ""}
    question["at"] = clock.now() if call.query["at-time"] is None else call.query["at-time"]
    if call.query["page"]:
        kept = call.platform.cursors.read(call.query["page"])
        if (kept["list"], kept["path"]) != (question["list"], question["path"]):
            raise errors.bad_request("page is the cursor of another program; send the same one for its next page.")
        question = kept
    try:
        items = await call.platform.searches.answer(call.who, text, question["at"])
    except ProgramError as error:
        raise errors.bad_request(str(error)) from None
    return reply(_page(call, items, question))


def _page(call: Call, items: list[Any], question: dict[str, Any]) -> dict[str, Any]:
    """Return the next items. Equal program, caller and time give equal items in equal order."""
    begin = question["begin"]
    if begin and (begin > len(items) or _digest(compact(items[begin - 1])) != question["last"]):
        raise errors.bad_request("The row after which page continues no longer exists; search again from the start.")
    end = begin + call.query["limit"]
    here = call.base + call.request.url.path
    links = [link("self", here + (f"?{call.request.url.query}" if call.request.url.query else ""))]
    if end < len(items):
        cursor = call.platform.cursors.write(question | {"begin": end, "last": _digest(compact(items[end - 1]))})
        links.append(link("next", f"{here}?page={cursor}"))
    return {"items": items[begin:end], "at-time": clock.stamp(question["at"]), "links": links}


OPERATIONS: Final = (
    Operation(
        "POST",
        "/1/search",
        search,
        "Search aspects by a Datalog program",
        (AT_TIME, Param("limit", "integer", 10, least=1, most=50), Param("page")),
        body=True,
        answers=(200, 400, 413, 415, 422),
        missing=(
            "Of Mangle, :load_aspect, facts and rules of atoms are answered. The rest is refused with 400, such as"
            " negation, comparisons and functions."
        ),
        takes=Body({"type": "string"}, (_DATALOG, "application/json")),
        gives=listed({}),
    ),
)
