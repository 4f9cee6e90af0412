"""`/_embedded`: the embedded platform's description of itself, and controls for tests.

`GET /_embedded` is open to all, and answers a challenge with the server's proof (proof.py). The controls need the
control token: faults, request log, clock, logins and likeness.

`/_embedded/clock`: GET returns `now`, `rate` (0 while it is stopped) and `offset` in seconds from the machine's time.
POST takes `now` (RFC 3339), `advance` (seconds to add) and `freeze`. DELETE returns to the machine's time.

`/_embedded/login`: POST confirms the login of the device that shows `user_code`, or refuses it (`deny`). `account` is
`first` or `second` for IVCAP, and a username for Provena's realm. IVCAP's access tokens are valid for `lifetime`
seconds (3600).

`/_embedded/like`: POST takes the platforms to imitate (`like`, which is `production`) and how many times as fast
(`speed`, 1). DELETE makes the server as fast as it can be.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ivcap_flows.local import clock
from ivcap_flows.local.faults import FaultLayer, parse_rule
from ivcap_flows.local.ivcap.login.state import LONGEST
from ivcap_flows.local.likeness import AS_BUILT, Likeness, likeness
from ivcap_flows.local.proof import CHALLENGE_HEADER, proof

__all__ = ["CONTROL_HEADER", "routes"]

CONTROL_HEADER: Final = "X-Embedded-Control"


def routes(
    about: Callable[[], dict[str, Any]],
    layer: Callable[[], FaultLayer],
    token: str,
    keep_clock: Callable[[], Awaitable[None]],
    decide_login: Callable[..., Awaitable[bool]],
    be_like: Callable[[Likeness], None],
) -> list[Route]:
    """Return the routes. `GET /_embedded` is open to all; the others need the token in `X-Embedded-Control`.

    `keep_clock` stores a change of the clock, `decide_login` confirms or refuses a device login, and `be_like` changes
    the latencies and limits of the server.
    """

    async def show(request: Request) -> Response:
        challenge = request.headers.get(CHALLENGE_HEADER)
        return JSONResponse(about() | ({} if challenge is None else {"proof": proof(token, challenge)}))

    async def faults(request: Request) -> Response:
        rules = layer().rules
        if request.method == "DELETE":
            rules.clear()
            return Response(status_code=204)
        if request.method == "GET":
            return JSONResponse({"faults": [rule.as_json() for rule in rules]})
        given = await _body(request)
        made = [parse_rule(one) for one in (given if isinstance(given, list) else [given])]
        rules.extend(made)
        return JSONResponse({"faults": [rule.as_json() for rule in made]}, 201)

    async def log(request: Request) -> Response:
        watched = layer()
        if request.method == "DELETE":
            watched.log.clear()
            watched.total = 0
            return Response(status_code=204)
        return JSONResponse({"total": watched.total, "requests": [entry.as_json() for entry in watched.log]})

    async def time(request: Request) -> Response:
        if request.method != "GET":
            _change(await _body(request) if request.method == "POST" else None)
            await keep_clock()
        return JSONResponse(clock.CLOCK.as_json())

    async def login(request: Request) -> Response:
        if await decide_login(**_decision(await _body(request))):
            return Response(status_code=204)
        return JSONResponse({"message": "No pending login has this code, or there is no such account."}, 404)

    async def like(request: Request) -> Response:
        be_like(_likeness(await _body(request)) if request.method == "POST" else AS_BUILT)
        return JSONResponse(about())

    def guarded(path: str, handler: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
        """Return a route that needs the control token, and replies 400 to what its handler refuses by a ValueError."""

        async def handle(request: Request) -> Response:
            if not hmac.compare_digest(request.headers.get(CONTROL_HEADER, "").encode(), token.encode()):
                return JSONResponse({"message": f"The control token is needed in {CONTROL_HEADER}."}, 401)
            try:
                return await handler(request)
            except (ValueError, OverflowError) as error:
                return JSONResponse({"message": str(error)}, 400)

        return Route(f"/_embedded/{path}", handle, methods=methods)

    return [
        Route("/_embedded", show, methods=["GET"]),
        guarded("faults", faults, "GET", "POST", "DELETE"),
        guarded("log", log, "GET", "DELETE"),
        guarded("clock", time, "GET", "POST", "DELETE"),
        guarded("login", login, "POST"),
        guarded("like", like, "POST", "DELETE"),
    ]


async def _body(request: Request) -> Any:
    """Return the JSON of a request. Raises ValueError."""
    try:
        return json.loads(await request.body())
    except ValueError:
        raise ValueError("The body is not JSON.") from None


def _decision(wanted: Any) -> dict[str, Any]:
    """Check a decision on a login, and return it. Raises ValueError."""
    known = {"user_code", "account", "deny", "lifetime"}
    if not isinstance(wanted, dict) or not {"user_code", "account"} <= set(wanted) <= known:
        raise ValueError("The body must be a JSON object with user_code, account and optionally deny and lifetime.")
    if not isinstance(wanted["user_code"], str) or not isinstance(wanted["account"], str):
        raise ValueError("user_code and account must be texts.")
    if not isinstance(wanted.get("deny", False), bool):
        raise ValueError("deny must be true or false.")
    lifetime = wanted.get("lifetime", 1)
    if not isinstance(lifetime, int | float) or isinstance(lifetime, bool) or not 1 <= lifetime <= LONGEST:
        raise ValueError(f"lifetime must be a number of seconds from 1 to {LONGEST:.0f}.")
    return wanted


def _likeness(wanted: Any) -> Likeness:
    """Read a likeness. Raises ValueError."""
    if not isinstance(wanted, dict) or not {"like"} <= set(wanted) <= {"like", "speed"}:
        raise ValueError("The body must be a JSON object with like and optionally speed.")
    speed = wanted.get("speed", 1)
    if not isinstance(speed, int | float) or isinstance(speed, bool):
        raise ValueError("speed must be a number.")
    return likeness(str(wanted["like"]), speed)


def _change(wanted: Any) -> None:
    """Change the clock; None returns to the machine's time. Raises ValueError, and then changes nothing."""
    if wanted is None:
        clock.CLOCK.reset()
        return
    known = ("now", "advance", "freeze")
    if not isinstance(wanted, dict) or not wanted or not set(wanted) <= set(known):
        raise ValueError(f"The body must be a JSON object with one or more of {', '.join(known)}.")
    moment, advance, freeze = (wanted.get(name) for name in known)
    if moment is not None and not isinstance(moment, str):
        raise ValueError("now must be an RFC 3339 time.")
    if advance is not None and (not isinstance(advance, int | float) or isinstance(advance, bool) or not advance >= 0):
        raise ValueError("advance must be a number of seconds of at least 0.")
    if freeze is not None and not isinstance(freeze, bool):
        raise ValueError("freeze must be true or false.")
    target = clock.now() if moment is None else clock.parse(moment, end_of_second=False)
    clock.CLOCK.set(target + round((advance or 0) * 1000), freeze=freeze)
