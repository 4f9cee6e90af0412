"""`ivcap-flows login`: log in with a device code, and store the tokens in a context or in a Prefect block."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from cyclopts import Parameter
from platformdirs import user_data_path
from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.cli.output import console
from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import digest, platform_id
from ivcap_flows.secrets import hide
from ivcap_flows.settings import Settings
from ivcap_flows.whole_file import write_private

if TYPE_CHECKING:
    from uuid import UUID

    from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
    from ivcap_flows.http.oauth import Tokens, Verification
    from ivcap_flows.ivcap.contexts import Context, ContextFile

__all__ = ["login"]

_BLOCK_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

Secrets = dict[str, SecretStr]
"""The tokens of a login, by the field of the block that holds them."""


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
    all flows on this Prefect server can use and renew. The token of Provena goes into a Prefect block.

    If Prefect could not store an earlier login, its tokens are stored now, without another confirmation.

    Args:
        url: Base URL of the IVCAP deployment. Default: the URL of the context or block.
        context: Name of the context. Default: the host of the URL; without a URL, the active context.
        block: Store the login in the IvcapCredentials block of this name.
        provena: Log in to Provena instead, at PROVENA_DOMAIN and PROVENA_REALM, and store the offline token in the
            ProvenaCredentials block of this name.
    """
    for name in (block, provena):
        if name is not None and not _BLOCK_NAME.fullmatch(name):
            raise InputError(f"A block name has only small letters, digits and dashes, unlike {name!r}.")
    if url is not None:
        _check_url(url)
    if provena is not None:
        if any(given is not None for given in (url, context, block)):
            raise InputError("--provena takes no URL, --context or --block: the settings say where Provena is.")
        _provena_to_block(provena)
    elif block is None:
        _ivcap_to_context(context, url)
    elif context is None:
        _ivcap_to_block(block, url)
    else:
        raise InputError("--block and --context are two places for one login. Give one of them.")


def _check_url(url: str) -> None:
    """Raise InputError for a URL that cannot be read or has no host."""
    with contextlib.suppress(ValueError):
        if urlsplit(platform_id(url)).hostname:
            return
    raise InputError(f"The URL of IVCAP must be like https://host/path, not {url!r}.")


def _ivcap_to_context(context: str | None, url: str | None) -> None:
    # Imported here, since otherwise every command would load the client and its cryptography.
    from ivcap_flows.ivcap.contexts import ACTIVE, ContextFile

    file = ContextFile()
    known = _known_context(file, url, context or (None if url else ACTIVE))
    name = known.name if known else context or urlsplit(url or "").hostname or ""
    if not name or name == ACTIVE:
        raise InputError(f"A context cannot be named {name!r}. Give another name with --context.")
    place = known.url if known else (url or "").rstrip("/")
    tokens, user = loop.run(_confirmed(place, known.host if known else None))

    async def store() -> None:
        async with file.locked():
            file.write(name, tokens, {"url": place, **user})

    loop.run(store())
    console.print(_logged_in(place, _name(user)))
    console.print(f"Flows use this login with IVCAP_CONTEXT={name}")


def _known_context(file: ContextFile, url: str | None, context: str | None) -> Context | None:
    """Return the existing context to log in to again, or None for a new one.

    Raise ConfigurationError for a file that could not store the login.
    """
    if url is None:
        return file.read(context or "")
    file.check()
    try:
        found = file.read(context or urlsplit(url).hostname or "")
    except ConfigurationError:
        return None
    _check_deployment("context", found.name, found.url, url)
    return found


def _ivcap_to_block(name: str, url: str | None) -> None:
    """Log in to IVCAP, and store the login in the IvcapCredentials block of this name, which keeps its other fields."""
    from ivcap_flows.blocks import IvcapCredentials

    _need_prefect(IvcapCredentials)
    known = _known_block(name)
    place = (url or (known.url if known else "")).rstrip("/")
    if not place:
        raise InputError(f"There is no block {name!r} yet. Give the URL of the IVCAP deployment.")
    if known is not None:
        _check_deployment("block", name, known.url or place, place)

    def confirmed() -> tuple[Secrets, str | None]:
        tokens, user = loop.run(_confirmed(place, known.connection.host if known else None))
        if tokens.refresh is None:
            raise ConfigurationError(
                f"{place} gives no refresh token, so flows could not renew this login. Ask its operators for one, or "
                "for client credentials (client_id and client_secret of IvcapCredentials)."
            )
        return {"token": tokens.access, "refresh_token": tokens.refresh}, _name(user)

    def made(secrets: Secrets) -> IvcapCredentials:
        if known is None:
            return IvcapCredentials(url=place, **secrets)
        # The login belongs to the client that the deployment names, and to no context.
        connection = known.connection.model_copy(update={"in_container": False})
        return IvcapCredentials(url=place, connection=connection, **secrets)

    _store(name, f"{place} --block {name}", place, "", confirmed, made)


def _known_block(name: str) -> IvcapCredentials | None:
    """Return the existing block of this name, or None."""
    from ivcap_flows.blocks import IvcapCredentials

    try:
        return loop.run(IvcapCredentials.aload(name))
    except ValueError:
        return None
    except RuntimeError as error:
        raise InputError(f"The block {name!r} cannot be used as it is. Correct or delete it in Prefect.") from error


def _provena_to_block(name: str) -> None:
    """Log in to Provena, and store the offline token in the ProvenaCredentials block of this name."""
    from ivcap_flows.blocks import ProvenaCredentials
    from ivcap_flows.blocks.provena_credentials import addresses_in
    from ivcap_flows.http.auth import claims
    from ivcap_flows.provena.client import Endpoints
    from ivcap_flows.provena.login import device_login

    settings = Settings()
    if not (settings.provena_configured and settings.provena_realm):
        raise ConfigurationError("The address of Provena is not set. Set PROVENA_DOMAIN and PROVENA_REALM.")
    _need_prefect(ProvenaCredentials)
    client_id, addresses = settings.provena_client_id, addresses_in(settings)
    realm = Endpoints.of(domain=settings.provena_domain, realm=settings.provena_realm, **addresses).realm

    def confirmed() -> tuple[Secrets, str | None]:
        tokens = loop.run(device_login(realm, client_id, show=_show).tokens())
        hide(tokens.access.get_secret_value())
        if tokens.refresh is None:
            raise ConfigurationError(
                f"The client {client_id} of {realm} gives no offline token. Set PROVENA_CLIENT_ID to one that does."
            )
        hide(tokens.refresh.get_secret_value())
        user = claims(f"Bearer {tokens.access.get_secret_value()}").get("preferred_username")
        return {"offline_token": tokens.refresh}, user

    def made(secrets: Secrets) -> ProvenaCredentials:
        return ProvenaCredentials.located(settings, **secrets)

    _store(name, f"--provena {name}", realm, client_id, confirmed, made)


def _check_deployment(kind: str, name: str, there: str, url: str) -> None:
    """Raise InputError if a context or block belongs to another deployment than the one to log in to."""
    if platform_id(there) != platform_id(url):
        raise InputError(f"The {kind} {name!r} belongs to {there}. Give another name with --{kind}.")


def _need_prefect(kind: type[IvcapCredentials | ProvenaCredentials]) -> None:
    """Raise ConfigurationError if Prefect cannot save the block, before the user confirms a login."""
    try:
        kind.register_type_and_schema()
    except Exception as error:  # noqa: BLE001 - as when it is saved
        raise ConfigurationError(
            f"Prefect, which stores the login, cannot be used ({type(error).__name__}). Start its server, or set "
            "PREFECT_API_URL (and PREFECT_API_KEY) to a server that answers, and log in again."
        ) from None


def _store(
    name: str,
    arguments: str,
    place: str,
    client_id: str,
    confirmed: Callable[[], tuple[Secrets, str | None]],
    made: Callable[[Secrets], IvcapCredentials | ProvenaCredentials],
) -> None:
    """Store a login in a block: the one that is kept in a file, or else one that the user confirms now."""
    kept = user_data_path("ivcap-flows", appauthor=False) / "logins"
    kept /= f"{name}-{digest(f'{place} {client_id}'.encode())[:8]}.json"
    secrets = _read_kept(kept)
    if secrets is not None:
        message = f"Stored the login to {place} that was kept in {kept}."
    else:
        secrets, user = confirmed()
        message = _logged_in(place, user)
        # Write the file first: if the process dies while it asks Prefect, the confirmed login is not lost.
        with contextlib.suppress(OSError):
            _keep(kept, secrets)
    try:
        loop.run(_save(made(secrets), name))
    except Exception as error:  # noqa: BLE001 - Prefect's errors have no common base, and may show the token
        next_step = (
            f"The token is kept in {kept}, which only you can read. Run `ivcap-flows login {arguments}` again when "
            "Prefect answers: it stores the token and removes the file."
            if kept.exists()
            else f"The token could not be kept in {kept} either. Make the folder writable, and log in again."
        )
        raise ConfigurationError(f"Prefect did not store the login ({type(error).__name__}). {next_step}") from None
    kept.unlink(missing_ok=True)
    console.print(message)
    console.print(f'Flows use this login with credentials="{name}"')


async def _save(block: IvcapCredentials | ProvenaCredentials, name: str) -> None:
    """Save a block under its login's lock, so that a flow that renews the login now does not write over it."""
    from ivcap_flows.blocks.block_login import lock_of_login

    document: UUID | None = None
    with contextlib.suppress(ValueError, RuntimeError):
        saved: IvcapCredentials | ProvenaCredentials = await type(block).aload(name)
        document = saved._block_document_id
    async with lock_of_login(document) if document is not None else contextlib.nullcontext():
        await block.asave(name, overwrite=True)


def _read_kept(path: Path) -> Secrets | None:
    """Return the tokens of a login that Prefect has not stored yet, or None if there is none."""
    try:
        kept = {str(field): str(token) for field, token in json.loads(path.read_text("utf-8")).items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        # Leave out the error's text: it may show the token.
        raise ConfigurationError(
            f"The login in {path} cannot be read ({type(error).__name__}). Delete the file and log in again."
        ) from None
    for token in kept.values():
        hide(token)
    return {field: SecretStr(token) for field, token in kept.items()}


def _keep(path: Path, secrets: Secrets) -> None:
    """Write tokens to a file that their owner alone can read. Raise OSError if that fails."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, json.dumps({field: token.get_secret_value() for field, token in secrets.items()}))


async def _confirmed(url: str, host: str | None) -> tuple[Tokens, dict[str, str]]:
    """Let the user confirm a login to IVCAP; return the tokens and the user's fields of a context."""
    from ivcap_flows.ivcap.authinfo import provider_at

    provider = await provider_at(url, host)
    tokens = await provider.login(_show).tokens()
    hide(tokens.access.get_secret_value())
    return tokens, {} if tokens.id is None else _user(await provider.claims(tokens.id))


def _user(claims: dict[str, Any]) -> dict[str, str]:
    """Return the user's fields of a context, from the same claims that `ivcap login` reads."""
    fields = {"account-name": "name", "account-nickname": "nickname", "email": "email"}
    found = {key: claims[claim] for key, claim in fields.items() if isinstance(claims.get(claim), str)}
    account = claims.get("acc")
    if isinstance(account, str) and account:
        found["account-id"] = f"urn:ivcap:account:{account}"
        found["provider-id"] = f"urn:ivcap:provider:{claims.get('ivcap/claims/provider') or account}"
    return found


def _name(user: dict[str, str]) -> str:
    return " ".join(user[key] for key in ("account-name", "email") if key in user)


def _logged_in(place: str, name: str | None) -> str:
    return f"Logged in to {place}{f' as {name}' if name else ''}."


def _show(verification: Verification) -> None:
    """Print the page on which the user confirms a login."""
    console.print(f"Open {verification.complete_uri or verification.uri}")
    console.print(f"and confirm the code {verification.code} within {verification.expires_in / 60:.0f} minutes.")
