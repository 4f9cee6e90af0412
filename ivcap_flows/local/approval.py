"""The page on which the user of this machine confirms a device login, for both platforms (RFC 8628, section 3.3)."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ivcap_flows.local.oauth import NO_STORE
from ivcap_flows.local.peer import is_own

__all__ = ["FOREIGN", "from_own_user", "page", "question"]

FOREIGN: Final = "Only the user who runs the embedded platform may decide on logins, on its machine."
_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 1rem/1.6 system-ui; margin: 4rem auto; max-width: 28rem }} code {{ font-size: 1.4em }}</style>
<h1>{title}</h1>
{body}
</html>
"""
_FORM: Final = """<p>A program on this machine wants to log in. Let it in only if it shows this code:</p>
<form method="post" action="{action}">
<p><input name="user_code" value="{code}" aria-label="code" required autocomplete="off"></p>
<p><select name="account" aria-label="account">{accounts}</select></p>
<p><button name="answer" value="allow">Let it in</button> <button name="answer" value="deny">Refuse</button></p>
</form>"""


def from_own_user(request: Request) -> bool:
    """Return whether a request comes from the user of this server, the only one who may decide.

    The user's browser also posts forms of pages that others serve on this machine, but names their origin.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if origin is not None and origin != f"{request.url.scheme}://{host}":
        return False
    return is_own(request.scope.get("client"), request.scope.get("server"))


def page(title: str, body: str, status: int = 200) -> Response:
    """Return a page with this HTML, which no other site can put in a frame."""
    headers = {**NO_STORE, "content-security-policy": "frame-ancestors 'none'; form-action 'self'"}
    return HTMLResponse(_PAGE.format(title=title, body=body), status, headers=headers)


def question(action: str, code: str, accounts: Iterable[str]) -> str:
    """Return the form that posts `user_code`, `account` and `answer` (`allow` or `deny`) to the path `action`."""
    options = "".join(f"<option>{html.escape(name)}</option>" for name in accounts)
    return _FORM.format(action=html.escape(action), code=html.escape(code), accounts=options)
