"""`ivcap-flows login`: log in with a device code, to an IVCAP deployment as the `ivcap` command does, or to Provena."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from cyclopts import Parameter

from ivcap_flows import loop
from ivcap_flows.cli.output import console
from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import platform_id
from ivcap_flows.secrets import hide

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

    from ivcap_flows.http.oauth import Tokens, Verification
    from ivcap_flows.ivcap.contexts import Context, ContextFile

__all__ = ["login"]

_BLOCK_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def login(
    url: str | None = None,
    /,
    *,
    context: Annotated[str | None, Parameter(name="--context")] = None,
    provena: Annotated[str | None, Parameter(name="--provena")] = None,
) -> None:
    """Log in to IVCAP or Provena: show a page and a code to confirm in a browser, wait, and store the tokens.

    Tokens of IVCAP go into a context in the file of the `ivcap` command, so both commands share one login. Flows use
    a context if IVCAP_CONTEXT or their credentials name it. The token of Provena goes into a Prefect block.

    Args:
        url: Base URL of the IVCAP deployment. Default: the URL of the context.
        context: Name of the context. Default: the host of the URL; without a URL, the active context.
        provena: Log in to Provena instead, at PROVENA_DOMAIN and PROVENA_REALM, and store the offline token in the
            ProvenaCredentials block of this name. If an earlier login could not be stored, its token is stored now,
            without another confirmation.
    """
    if provena is not None:
        if url is not None or context is not None:
            raise InputError("--provena takes no URL and no --context: the settings say where Provena is.")
        _to_provena(provena)
        return
    # Imported here, since otherwise every command would load the client and its cryptography.
    from ivcap_flows.ivcap.contexts import ACTIVE, ContextFile

    file = ContextFile()
    known = _known(file, url, context or (None if url else ACTIVE))
    name = known.name if known else context or urlsplit(url or "").hostname or ""
    if not name or name == ACTIVE:
        raise InputError(f"A context cannot be named {name!r}. Give another name with --context.")
    place = known.url if known else (url or "").rstrip("/")
    tokens, who = loop.run(_log_in(place, known.host if known else None))
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


async def _log_in(url: str, host: str | None) -> tuple[Tokens, dict[str, str]]:
    from ivcap_flows.http.session import Session
    from ivcap_flows.ivcap.authinfo import discover

    async with Session(url, platform="IVCAP", host=host) as session:
        provider = await discover(session)
    tokens = await provider.login(_show).tokens()
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


def _show(verification: Verification) -> None:
    console.print(f"Open {verification.complete_uri or verification.uri}")
    console.print(f"and confirm the code {verification.code} within {verification.expires_in / 60:.0f} minutes.")


async def _keep(file: ContextFile, name: str, tokens: Tokens, more: dict[str, str]) -> None:
    async with file.locked():
        file.write(name, tokens, more)


def _to_provena(name: str) -> None:
    from ivcap_flows.blocks import ProvenaCredentials
    from ivcap_flows.cli.kept_token import KeptToken
    from ivcap_flows.settings import Settings

    if not _BLOCK_NAME.fullmatch(name):
        raise InputError(f"A block name has only small letters, digits and dashes, unlike {name!r}.")
    settings = Settings()
    if not (settings.provena_configured and settings.provena_realm):
        raise ConfigurationError("The address of Provena is not set. Set PROVENA_DOMAIN and PROVENA_REALM.")
    place = ProvenaCredentials.located(settings)
    realm = place.endpoints().realm
    _need_prefect()
    kept = KeptToken(name, realm, place.client_id)
    token = kept.read()
    if token is not None:
        done = f"Stored the login to {realm} that was kept in {kept.path}."
    else:
        token, who = _offline_token(realm, place.client_id)
        done = f"Logged in to {realm}{f' as {who}' if who else ''}."
        # Write the file first: if the process dies while it asks Prefect, the confirmed login is not lost.
        with contextlib.suppress(OSError):
            kept.write(token)
    try:
        ProvenaCredentials.located(settings, offline_token=token).save(name, overwrite=True)
    except Exception as error:  # noqa: BLE001 - Prefect's errors have no common base, and may show the token
        raise ConfigurationError(_not_stored(name, kept.path, error)) from None
    kept.delete()
    console.print(done)
    console.print(f'Flows use this login with credentials="{name}"')


def _need_prefect() -> None:
    """Raise ConfigurationError if Prefect cannot save the block, before the user confirms a login."""
    from ivcap_flows.blocks import ProvenaCredentials

    try:
        ProvenaCredentials.register_type_and_schema()
    except Exception as error:  # noqa: BLE001 - as when it is saved
        raise ConfigurationError(
            f"Prefect, which stores the login, cannot be used ({type(error).__name__}). Start its server, or set "
            "PREFECT_API_URL (and PREFECT_API_KEY) to a server that answers, and log in again."
        ) from None


def _offline_token(realm: str, client_id: str) -> tuple[SecretStr, str | None]:
    """Let the user confirm a login; return the offline token, and the user's name if the token has it."""
    from ivcap_flows.http.auth import claims
    from ivcap_flows.provena.login import device_login

    tokens = loop.run(device_login(realm, client_id, show=_show).tokens())
    hide(tokens.access.get_secret_value())
    if tokens.refresh is None:
        raise ConfigurationError(
            f"The client {client_id} of {realm} gives no offline token. Set PROVENA_CLIENT_ID to one that does."
        )
    hide(tokens.refresh.get_secret_value())
    return tokens.refresh, claims(f"Bearer {tokens.access.get_secret_value()}").get("preferred_username")


def _not_stored(name: str, path: Path, error: Exception) -> str:
    why = f"Prefect did not store the login ({type(error).__name__})."
    if not path.exists():
        return f"{why} The token could not be kept in {path} either. Make the folder writable, and log in again."
    return (
        f"{why} The token is kept in {path}, which only you can read. Run `ivcap-flows login --provena {name}` again "
        "when Prefect answers: it stores the token and removes the file."
    )
