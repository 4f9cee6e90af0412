"""`ivcap-flows login`: log in with a device code, to an IVCAP deployment as the `ivcap` command does, or to Provena."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from ivcap_flows import loop
from ivcap_flows.cli.block_logins import ivcap_to_block, provena_to_block
from ivcap_flows.cli.confirmation import log_in
from ivcap_flows.cli.output import console
from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import platform_id

if TYPE_CHECKING:
    from ivcap_flows.http.oauth import Tokens
    from ivcap_flows.ivcap.contexts import Context, ContextFile

__all__ = ["login"]


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


async def _keep(file: ContextFile, name: str, tokens: Tokens, more: dict[str, str]) -> None:
    async with file.locked():
        file.write(name, tokens, more)
