"""A login that the user confirms in a browser: what is shown, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ivcap_flows.cli.output import console
from ivcap_flows.secrets import hide

if TYPE_CHECKING:
    from ivcap_flows.http.oauth import Tokens, Verification

__all__ = ["log_in", "show"]


async def log_in(url: str, host: str | None) -> tuple[Tokens, dict[str, str]]:
    """Let the user confirm a login to IVCAP; return the tokens and the user's fields of a context."""
    from ivcap_flows.ivcap.authinfo import provider_at

    provider = await provider_at(url, host)
    tokens = await provider.login(show).tokens()
    hide(tokens.access.get_secret_value())
    return tokens, {} if tokens.id is None else _identity(await provider.claims(tokens.id))


def _identity(claims: dict[str, Any]) -> dict[str, str]:
    """Return the user's fields of a context, from the same claims that `ivcap login` reads."""
    told = {"account-name": "name", "account-nickname": "nickname", "email": "email"}
    found = {key: claims[claim] for key, claim in told.items() if isinstance(claims.get(claim), str)}
    account = claims.get("acc")
    if isinstance(account, str) and account:
        found["account-id"] = f"urn:ivcap:account:{account}"
        found["provider-id"] = f"urn:ivcap:provider:{claims.get('ivcap/claims/provider') or account}"
    return found


def show(verification: Verification) -> None:
    """Print the page on which the user confirms a login."""
    console.print(f"Open {verification.complete_uri or verification.uri}")
    console.print(f"and confirm the code {verification.code} within {verification.expires_in / 60:.0f} minutes.")
