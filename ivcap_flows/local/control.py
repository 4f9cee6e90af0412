"""`/_twin`: what a twin says about itself, and its faults and request log for those who hold the control token."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ivcap_flows.local.faults import BadRuleError, FaultLayer, parse_rule

__all__ = ["CONTROL_HEADER", "routes"]

CONTROL_HEADER: Final = "X-Twin-Control"


def routes(about: Callable[[], dict[str, Any]], layer: Callable[[], FaultLayer], token: str) -> list[Route]:
    """`GET /_twin` is open to all; the rest wants the token in `X-Twin-Control`."""

    async def show(request: Request) -> Response:
        return JSONResponse(about())

    def guarded(request: Request) -> Response | None:
        if hmac.compare_digest(request.headers.get(CONTROL_HEADER, "").encode(), token.encode()):
            return None
        return JSONResponse({"message": f"The control token is needed in {CONTROL_HEADER}."}, 401)

    async def faults(request: Request) -> Response:
        refused = guarded(request)
        if refused is not None:
            return refused
        rules = layer().rules
        if request.method == "DELETE":
            rules.clear()
            return Response(status_code=204)
        if request.method == "POST":
            try:
                given = json.loads(await request.body())
                made = [parse_rule(one) for one in (given if isinstance(given, list) else [given])]
            except BadRuleError as error:
                return JSONResponse({"message": str(error)}, 400)
            except ValueError:
                return JSONResponse({"message": "The body is not JSON."}, 400)
            rules.extend(made)
            return JSONResponse({"faults": [rule.as_json() for rule in made]}, 201)
        return JSONResponse({"faults": [rule.as_json() for rule in rules]})

    async def log(request: Request) -> Response:
        refused = guarded(request)
        if refused is not None:
            return refused
        watched = layer()
        if request.method == "DELETE":
            watched.log.clear()
            watched.total = 0
            return Response(status_code=204)
        return JSONResponse({"total": watched.total, "requests": [entry.as_json() for entry in watched.log]})

    return [
        Route("/_twin", show, methods=["GET"]),
        Route("/_twin/faults", faults, methods=["GET", "POST", "DELETE"]),
        Route("/_twin/log", log, methods=["GET", "DELETE"]),
    ]
