"""`ivcap-flows login --block` and `--provena`: logins that are stored in Prefect blocks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.cli.confirmation import log_in, show
from ivcap_flows.cli.kept_token import KeptToken
from ivcap_flows.cli.output import console
from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import platform_id
from ivcap_flows.secrets import hide
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from uuid import UUID

    from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials

__all__ = ["ivcap_to_block", "provena_to_block"]

_BLOCK_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

Secrets = dict[str, SecretStr]
"""The tokens of a login, by the field of the block that holds them."""


def ivcap_to_block(name: str, url: str | None) -> None:
    """Log in to IVCAP, and store the login in the IvcapCredentials block of this name.

    An existing block keeps its other fields. Raises InputError if it belongs to another deployment.
    """
    from ivcap_flows.blocks import IvcapCredentials

    _check_name(name)
    _need_prefect(IvcapCredentials)
    known = _known(name)
    place = (url or (known.url if known else "")).rstrip("/")
    if not place:
        raise InputError(f"There is no block {name!r} yet. Give the URL of the IVCAP deployment.")
    if known is not None and platform_id(known.url or place) != platform_id(place):
        raise InputError(f"The block {name!r} belongs to {known.url}. Give another name with --block.")

    def confirmed() -> tuple[Secrets, str | None]:
        tokens, who = loop.run(log_in(place, known.connection.host if known else None))
        if tokens.refresh is None:
            raise ConfigurationError(
                f"{place} gives no refresh token, so flows could not renew this login. Ask its operators for one, or "
                "for client credentials (client_id and client_secret of IvcapCredentials)."
            )
        shown = " ".join(who[key] for key in ("account-name", "email") if key in who)
        return {"token": tokens.access, "refresh_token": tokens.refresh}, shown

    def made(secrets: Secrets) -> IvcapCredentials:
        if known is None:
            return IvcapCredentials(url=place, **secrets)
        # The login belongs to the client that the deployment names, and to no context.
        connection = known.connection.model_copy(update={"in_container": False})
        return IvcapCredentials(url=place, connection=connection, **secrets)

    _store(name, f"login {place} --block {name}", place, KeptToken(name, place, ""), confirmed, made)


def provena_to_block(name: str) -> None:
    """Log in to Provena, and store the offline token in the ProvenaCredentials block of this name."""
    from ivcap_flows.blocks import ProvenaCredentials
    from ivcap_flows.blocks.provena_credentials import addresses_in
    from ivcap_flows.provena.client import Endpoints

    _check_name(name)
    settings = Settings()
    if not (settings.provena_configured and settings.provena_realm):
        raise ConfigurationError("The address of Provena is not set. Set PROVENA_DOMAIN and PROVENA_REALM.")
    client_id = settings.provena_client_id
    domain, addresses = settings.provena_domain, addresses_in(settings)
    realm = Endpoints.of(domain=domain, realm=settings.provena_realm, **addresses).realm
    _need_prefect(ProvenaCredentials)

    def confirmed() -> tuple[Secrets, str | None]:
        token, who = _offline_token(realm, client_id)
        return {"offline_token": token}, who

    def made(secrets: Secrets) -> ProvenaCredentials:
        return ProvenaCredentials.located(settings, **secrets)

    _store(name, f"login --provena {name}", realm, KeptToken(name, realm, client_id), confirmed, made)


def _check_name(name: str) -> None:
    if not _BLOCK_NAME.fullmatch(name):
        raise InputError(f"A block name has only small letters, digits and dashes, unlike {name!r}.")


def _need_prefect(kind: type[IvcapCredentials | ProvenaCredentials]) -> None:
    """Raise ConfigurationError if Prefect cannot save the block, before the user confirms a login."""
    try:
        kind.register_type_and_schema()
    except Exception as error:  # noqa: BLE001 - as when it is saved
        raise ConfigurationError(
            f"Prefect, which stores the login, cannot be used ({type(error).__name__}). Start its server, or set "
            "PREFECT_API_URL (and PREFECT_API_KEY) to a server that answers, and log in again."
        ) from None


def _known(name: str) -> IvcapCredentials | None:
    """Return the existing block of this name, or None."""
    from ivcap_flows.blocks import IvcapCredentials

    try:
        return loop.run(IvcapCredentials.aload(name))
    except ValueError:
        return None
    except RuntimeError as error:
        raise InputError(f"The block {name!r} cannot be used as it is. Correct or delete it in Prefect.") from error


def _store(
    name: str,
    command: str,
    place: str,
    kept: KeptToken,
    confirmed: Callable[[], tuple[Secrets, str | None]],
    made: Callable[[Secrets], IvcapCredentials | ProvenaCredentials],
) -> None:
    """Store a kept login, or else one that the user confirms now, in a block."""
    secrets = kept.read()
    if secrets is not None:
        done = f"Stored the login to {place} that was kept in {kept.path}."
    else:
        secrets, who = confirmed()
        done = f"Logged in to {place}{f' as {who}' if who else ''}."
        # Write the file first: if the process dies while it asks Prefect, the confirmed login is not lost.
        with contextlib.suppress(OSError):
            kept.write(secrets)
    try:
        loop.run(_save(made(secrets), name))
    except Exception as error:  # noqa: BLE001 - Prefect's errors have no common base, and may show the token
        raise ConfigurationError(_not_stored(command, kept.path, error)) from None
    kept.delete()
    console.print(done)
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


def _offline_token(realm: str, client_id: str) -> tuple[SecretStr, str | None]:
    """Let the user confirm a login; return the offline token, and the user's name if the token has it."""
    from ivcap_flows.http.auth import claims
    from ivcap_flows.provena.login import device_login

    tokens = loop.run(device_login(realm, client_id, show=show).tokens())
    hide(tokens.access.get_secret_value())
    if tokens.refresh is None:
        raise ConfigurationError(
            f"The client {client_id} of {realm} gives no offline token. Set PROVENA_CLIENT_ID to one that does."
        )
    hide(tokens.refresh.get_secret_value())
    return tokens.refresh, claims(f"Bearer {tokens.access.get_secret_value()}").get("preferred_username")


def _not_stored(command: str, path: Path, error: Exception) -> str:
    why = f"Prefect did not store the login ({type(error).__name__})."
    if not path.exists():
        return f"{why} The token could not be kept in {path} either. Make the folder writable, and log in again."
    return (
        f"{why} The token is kept in {path}, which only you can read. Run `ivcap-flows {command}` again when Prefect "
        "answers: it stores the token and removes the file."
    )
