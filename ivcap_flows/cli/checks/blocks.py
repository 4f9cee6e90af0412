"""Saved credentials blocks: whether they can be loaded, log in, and stay logged in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from ivcap_flows import loop
from ivcap_flows.cli.checks.platforms import ivcap_account, not_renewed, provena_user
from ivcap_flows.errors import ConfigurationError, UnreachableError

if TYPE_CHECKING:
    from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials

__all__ = ["check_block", "saved_blocks"]

B = TypeVar("B", "IvcapCredentials", "ProvenaCredentials")

_TIMEOUT: Final = 60.0
"""Seconds for the check: another process may be renewing the login."""


def check_block(name: str) -> list[str]:
    """Return what is known of the blocks of this name, for IVCAP and for Provena.

    A login that can be renewed is renewed, to see that it works. Raises ConfigurationError if there is no block of this
    name, and the errors of a task that uses a wrong one.
    """
    try:
        return loop.run(asyncio.wait_for(_check(name), _TIMEOUT))
    except asyncio.TimeoutError as error:
        raise UnreachableError(
            f"The block {name!r} could not be checked within {_TIMEOUT:g} s. Check the network, and Prefect's server."
        ) from error


async def saved_blocks(name: str) -> tuple[IvcapCredentials | None, ProvenaCredentials | None]:
    """Return the blocks of this name. Raises ConfigurationError if there is none."""
    from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials

    ivcap, provena = await _saved(IvcapCredentials, name), await _saved(ProvenaCredentials, name)
    if ivcap is None and provena is None:
        raise ConfigurationError(
            f"Prefect has no credentials block named {name!r}. Log in by `ivcap-flows login URL --block {name}` or "
            f"`ivcap-flows login --provena {name}`."
        )
    return ivcap, provena


async def _check(name: str) -> list[str]:
    ivcap, provena = await saved_blocks(name)
    found = [] if ivcap is None else [await _ivcap(ivcap, name)]
    if provena is not None:
        async with provena.get_client() as client:
            found.append(f"Provena: {await provena_user(client)}")
    return found


async def _saved(kind: type[B], name: str) -> B | None:
    from ivcap_flows.blocks.load import load_block

    try:
        return await load_block(kind, name)
    except ConfigurationError as error:
        # A block that is not there has Prefect's own error as its cause, one that is wrong has none.
        if error.__cause__ is None:
            raise
        return None


async def _ivcap(block: IvcapCredentials, name: str) -> str:
    from ivcap_flows.blocks.block_login import BlockLogin

    if block.connection.in_container:
        return f"IVCAP at {block.url}: the sidecar of a container, which only a run within one can reach"
    if block.context:
        login = f"by the context {block.context} of the `ivcap` command, on the machine that runs the flow"
    elif block.refresh_token is not None:
        await BlockLogin(block).token().header(force=True)
        login = "its login was renewed"
    elif block.client_secret is not None:
        login = f"as the service account of {block.client_id}"
    else:
        token = block.token.get_secret_value() if block.token else ""
        login = f"its token {not_renewed(token, f'{block.url} --block {name}')}"
    async with block.get_client() as client:
        return f"IVCAP: {await ivcap_account(client)}, {login}"
