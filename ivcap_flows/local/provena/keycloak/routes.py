"""The realm over HTTP: description, keys, token and device endpoints, as Keycloak 16 serves them."""

from __future__ import annotations

import base64
import html
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ivcap_flows.local import approval
from ivcap_flows.local.oauth import NO_STORE, GrantError, read_form
from ivcap_flows.local.provena.keycloak.state import REALM, Realm
from ivcap_flows.local.provena.store import Store
from ivcap_flows.local.provena.users import ACCOUNTS, USER

__all__ = ["routes"]

_TITLE: Final = "Embedded Provena"


def routes(realm: Realm, store: Store) -> list[BaseRoute]:
    """Return the routes below the base URL of Keycloak."""
    openid = f"/realms/{REALM}/protocol/openid-connect"

    async def describe(request: Request) -> Response:
        return JSONResponse(
            {
                "realm": REALM,
                "public_key": base64.b64encode(realm.key.public_der).decode(),
                "token-service": f"{realm.issuer}/protocol/openid-connect",
                "account-service": f"{realm.issuer}/account",
                "tokens-not-before": 0,
            }
        )

    async def configuration(request: Request) -> Response:
        base = f"{realm.issuer}/protocol/openid-connect"
        return JSONResponse(
            {
                "issuer": realm.issuer,
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/certs",
                "device_authorization_endpoint": f"{base}/auth/device",
                "grant_types_supported": [
                    "refresh_token",
                    "client_credentials",
                    "urn:ietf:params:oauth:grant-type:device_code",
                ],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def certs(request: Request) -> Response:
        return JSONResponse(realm.key.jwks())

    async def token(request: Request) -> Response:
        form = read_form(await request.body())

        def work() -> dict[str, Any]:
            try:
                with store.transaction():
                    return realm.grant(form)
            except GrantError as error:
                if error.error in ("authorization_pending", "slow_down"):
                    with store.transaction():
                        realm.polled(form)
                raise

        return await _answer(work)

    async def device(request: Request) -> Response:
        form = read_form(await request.body())

        def work() -> dict[str, Any]:
            with store.transaction():
                return realm.device_code(form)

        return await _answer(work)

    async def page(request: Request) -> Response:
        if not approval.from_own_user(request):
            return approval.page(_TITLE, f"<p>{approval.FOREIGN}</p>", 403)
        if request.method != "POST":
            code = request.query_params.get("user_code", "")
            return approval.page(_TITLE, approval.question(request.url.path, code, ACCOUNTS))
        form = read_form(await request.body())
        account, deny = form.get("account", USER.username), form.get("answer") == "deny"

        def work() -> bool:
            with store.transaction():
                return realm.decide(form.get("user_code", ""), account, deny=deny)

        if not await run_in_threadpool(work):
            return approval.page(_TITLE, "<p>No pending login has this code.</p>", 404)
        done = "refused" if deny else f"signed in as {html.escape(account)}"
        return approval.page(_TITLE, f"<p>The program was {done}. You can close this page.</p>")

    return [
        Route(f"/realms/{REALM}", describe),
        Route(f"/realms/{REALM}/.well-known/openid-configuration", configuration),
        Route(f"/realms/{REALM}/device", page, methods=["GET", "POST"]),
        Route(f"{openid}/certs", certs),
        Route(f"{openid}/token", token, methods=["POST"]),
        Route(f"{openid}/auth/device", device, methods=["POST"]),
    ]


async def _answer(work: Any) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(work), headers=NO_STORE)
    except GrantError as error:
        return error.response()
