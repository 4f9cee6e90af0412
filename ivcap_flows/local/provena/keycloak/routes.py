"""The realm over HTTP: description, keys, token and device endpoints, as Keycloak 16 serves them."""

from __future__ import annotations

import base64
import html
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from ivcap_flows.local import approval
from ivcap_flows.local.oauth import NO_STORE, GrantError, read_form
from ivcap_flows.local.provena.keycloak.state import REALM, Realm
from ivcap_flows.local.provena.store import Store
from ivcap_flows.local.provena.users import ACCOUNTS, USER
from ivcap_flows.local.refusals import caller_gone

__all__ = ["keycloak"]

_TITLE: Final = "Embedded Provena"
_BASE: Final = f"/realms/{REALM}"
_OPENID: Final = f"{_BASE}/protocol/openid-connect"


async def _read_form(request: Request) -> dict[str, str]:
    return read_form(await request.body())


_Form = Annotated[dict[str, str], Depends(_read_form)]


def keycloak(realm: Realm, store: Store) -> FastAPI:
    """Return the application below the base URL of Keycloak."""
    site = FastAPI(openapi_url=None, exception_handlers={GrantError: _refused, ClientDisconnect: caller_gone})
    _description(site, realm)
    _grants(site, realm, store)
    _approval(site, realm, store)
    return site


async def _refused(request: Request, error: GrantError) -> Response:
    return error.response()


def _description(site: FastAPI, realm: Realm) -> None:
    openid = f"{realm.issuer}/protocol/openid-connect"

    @site.get(_BASE)
    def describe() -> Any:
        return {
            "realm": REALM,
            "public_key": base64.b64encode(realm.key.public_der).decode(),
            "token-service": openid,
            "account-service": f"{realm.issuer}/account",
            "tokens-not-before": 0,
        }

    @site.get(f"{_BASE}/.well-known/openid-configuration")
    def configuration() -> Any:
        return {
            "issuer": realm.issuer,
            "token_endpoint": f"{openid}/token",
            "jwks_uri": f"{openid}/certs",
            "device_authorization_endpoint": f"{openid}/auth/device",
            "grant_types_supported": [
                "refresh_token",
                "client_credentials",
                "urn:ietf:params:oauth:grant-type:device_code",
            ],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    @site.get(f"{_OPENID}/certs")
    def certs() -> Any:
        return realm.key.jwks()


def _grants(site: FastAPI, realm: Realm, store: Store) -> None:
    @site.post(f"{_OPENID}/token")
    def token(form: _Form) -> Any:
        try:
            with store.transaction():
                granted = realm.grant(form)
        except GrantError as error:
            if error.error in ("authorization_pending", "slow_down"):
                with store.transaction():
                    realm.polled(form)
            raise
        return JSONResponse(granted, headers=NO_STORE)

    @site.post(f"{_OPENID}/auth/device")
    def device(form: _Form) -> Any:
        with store.transaction():
            return JSONResponse(realm.device_code(form), headers=NO_STORE)


def _approval(site: FastAPI, realm: Realm, store: Store) -> None:
    def foreign() -> Response:
        return approval.page(_TITLE, f"<p>{approval.FOREIGN}</p>", 403)

    @site.get(f"{_BASE}/device")
    def ask(request: Request, user_code: str = "") -> Any:
        if not approval.from_own_user(request):
            return foreign()
        return approval.page(_TITLE, approval.question(request.url.path, user_code, ACCOUNTS))

    @site.post(f"{_BASE}/device")
    def decide(request: Request, form: _Form) -> Any:
        if not approval.from_own_user(request):
            return foreign()
        account, deny = form.get("account", USER.username), form.get("answer") == "deny"
        with store.transaction():
            decided = realm.decide(form.get("user_code", ""), account, deny=deny)
        if not decided:
            return approval.page(_TITLE, "<p>No pending login has this code.</p>", 404)
        done = "refused" if deny else f"signed in as {html.escape(account)}"
        return approval.page(_TITLE, f"<p>The program was {done}. You can close this page.</p>")
