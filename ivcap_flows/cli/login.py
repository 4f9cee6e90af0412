"""`ivcap-flows login`: log in with a device code, to an IVCAP deployment as the `ivcap` command does, or to Provena."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter

from ivcap_flows import loop
from ivcap_flows.cli.output import console
from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import platform_id
from ivcap_flows.secrets import hide

if TYPE_CHECKING:
    from ivcap_flows.http.oauth import Tokens, Verification
    from ivcap_flows.ivcap.contexts import Context, ContextFile

__all__ = ["log_in", "login", "show"]


def login(
    url: str | None = None,
    /,
    *,
    context: Annotated[str | None, Parameter(name="--context")] = None,
    block: Annotated[str | None, Parameter(name="--block")] = None,
    provena: Annotated[str | None, Parameter(name="--provena")] = None,
) -> None:
    """Log in to IVCAP or Provena: show a page and a code to confirm in a browser, wait, and store the tokens.

    Tokens of IVCAP go into a context in the file of the `ivcap` command, so both commands share one login. Flows use
    a context if IVCAP_CONTEXT or their credentials name it. With --block, they go into a Prefect block instead, which
    flows on all machines can use and renew. The token of Provena goes into a Prefect block.

    If Prefect could not store an earlier login, its tokens are stored now, without another confirmation.

    Args:
        url: Base URL of the IVCAP deployment. Default: the URL of the context or block.
        context: Name of the context. Default: the host of the URL; without a URL, the active context.
        block: Store the login in the IvcapCredentials block of this name.
        provena: Log in to Provena instead, at PROVENA_DOMAIN and PROVENA_REALM, and store the offline token in the
            ProvenaCredentials block of this name.
    """
    from ivcap_flows.cli.block_logins import ivcap_to_block, provena_to_block

    if provena is not None:
        if any(given is not None for given in (url, context, block)):
            raise InputError("--provena takes no URL, --context or --block: the settings say where Provena is.")
        provena_to_block(provena)
        return
    if block is not None:
        if context is not None:
            raise InputError("--block and --context are two places for one login. Give one of them.")
        ivcap_to_block(block, url)
        return
    # Imported here, since otherwise every command would load the client and its cryptography.
    from ivcap_flows.ivcap.contexts import ACTIVE, ContextFile

    if url is not None and not urlsplit(url).hostname:
        raise InputError(f"The URL of IVCAP must be like https://host/path, not {url!r}.")
    file = ContextFile()
    known = _known(file, url, context or (None if url else ACTIVE))
    name = known.name if known else context or urlsplit(url or "").hostname or ""
    if not name or name == ACTIVE:
        raise InputError(f"A context cannot be named {name!r}. Give another name with --context.")
    place = known.url if known else (url or "").rstrip("/")
    tokens, who = loop.run(log_in(place, known.host if known else None))
    loop.run(_keep(file, name, tokens, {"url": place, **who}))
    shown = " ".join(who[key] for key in ("account-name", "email") if key in who)
    console.print(f"Logged in to {place}{f' as {shown}' if shown else ''}.")
    console.print(f"Flows use this login with IVCAP_CONTEXT={name}")


def _known(file: ContextFile, url: str | None, context: str | None) -> Context | None:
    """Return the existing context to log in to again, or None for a new one."""
    if url is None:
        return file.read(context or "")
    platform_url = platform_id(url)
    try:
        found = file.read(context or urlsplit(url).hostname or "")
    except ConfigurationError:
        return None
    if platform_id(found.url) != platform_url:
        raise InputError(f"The context {found.name!r} belongs to {found.url}. Give another name with --context.")
    return found


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


async def _keep(file: ContextFile, name: str, tokens: Tokens, more: dict[str, str]) -> None:
    async with file.locked():
        file.write(name, tokens, more)
