"""The addresses in `/1/authinfo.yaml`: device code, tokens, keys, and the page on which the user confirms a device.

The form and status of each reply are those that ivcap-cli (cmd/login.go) reads.
"""

from __future__ import annotations

import asyncio
import html
from typing import Final

from starlette.responses import JSONResponse, Response

from ivcap_flows.local import approval
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.login.state import CLIENT
from ivcap_flows.local.ivcap.routing import Call, Operation, Param
from ivcap_flows.local.ivcap.shapes import Body
from ivcap_flows.local.oauth import NO_STORE, GrantError, read_form

__all__ = ["AUTHINFO", "ROUTES"]

_AUTHINFO: Final = """version: 1
auth:
  default-provider-id: embedded
  providers:
    embedded:
      login-url: {base}/login
      token-url: {base}/login/token
      code-url: {base}/login/device
      jwks-url: {base}/login/keys
      client-id: {client}
      audience: {base}/
"""
_TITLE: Final = "Embedded IVCAP"


def authinfo(call: Call) -> Response:
    return Response(_AUTHINFO.format(base=call.base, client=CLIENT), media_type="application/yaml")


def _check_peer(call: Call) -> None:
    """Raise Problem 403 unless the caller is the user of this server."""
    if not approval.from_own_user(call.request):
        raise errors.forbidden(approval.FOREIGN)


def show(call: Call) -> Response:
    _check_peer(call)
    return approval.page(_TITLE, approval.question("/login", call.query["user_code"], call.platform.logins.accounts))


def decide(call: Call) -> Response:
    _check_peer(call)
    form = read_form(call.body)
    deny = form.get("answer") == "deny"
    account = form.get("account") or call.platform.logins.accounts[0]
    if not call.platform.logins.decide(form.get("user_code", ""), account, deny=deny):
        return approval.page(_TITLE, "<p>No pending login has this code.</p>", 404)
    done = "refused" if deny else f"let in as the {html.escape(account)} account"
    return approval.page(_TITLE, f"<p>The program was {done}. You can close this page.</p>")


async def device(call: Call) -> Response:
    form = read_form(call.body)
    try:
        begun = await call.state(call.platform.logins.begin, form.get("client_id", ""), form.get("scope", ""))
    except GrantError as error:
        return error.response()
    page = f"{call.base}/login"
    complete = f"{page}?user_code={begun['user_code']}"
    return JSONResponse({**begun, "verification_uri": page, "verification_uri_complete": complete}, headers=NO_STORE)


async def token(call: Call) -> Response:
    form, logins = read_form(call.body), call.platform.logins
    await asyncio.to_thread(lambda: logins.key)

    try:
        return JSONResponse(await call.state(logins.grant, form, f"{call.base}/login"), headers=NO_STORE)
    except GrantError as error:
        return error.response()


async def keys(call: Call) -> Response:
    key = await asyncio.to_thread(lambda: call.platform.logins.key)
    return JSONResponse(key.jwks())


AUTHINFO: Final = Operation(
    "GET",
    "/1/authinfo.yaml",
    authinfo,
    "Read where to log in",
    public=True,
    gives=Body(media=("application/yaml",)),
)
ROUTES: Final = (
    Operation(
        "GET", "/login", show, "Page for allowing or refusing a login", (Param("user_code", default=""),), public=True
    ),
    Operation("POST", "/login", decide, "Allow or refuse a login", body=True, public=True),
    Operation("POST", "/login/device", device, "Begin a login", body=True, public=True),
    Operation("POST", "/login/token", token, "Get tokens", body=True, public=True),
    Operation("GET", "/login/keys", keys, "Keys of id tokens", public=True),
)
"""Routes of the identity provider. On a real platform that is another server, so they are not in the description."""
