"""The login in a credentials block, which is renewed for all flows that load the block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from pydantic import ValidationError

from ivcap_flows.blocks.prefect_lock import HELD, prefect_lock, prefect_unreachable
from ivcap_flows.errors import ConfigurationError, UnreachableError
from ivcap_flows.http.oauth import Tokens
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.shared_login import Login, SharedToken
from ivcap_flows.secrets import hide

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import BlockDocument

    from ivcap_flows.blocks.credentials import PlatformCredentials

__all__ = ["BlockLogin", "lock_of_login"]

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to write a renewed login to its block."""


def lock_of_login(document: UUID) -> AbstractAsyncContextManager[None]:
    """Return the lock under which the login in a saved block is changed."""
    return prefect_lock(f"ivcap-flows-login-{document}")


class BlockLogin:
    """A block as the store of a shared login. If the block is not saved, its login is this process's own."""

    def __init__(self, block: PlatformCredentials) -> None:
        self.platform: str = block._platform
        self._block = block
        self._name = block._block_document_name
        # Client credentials are not used up, so nothing of them is shared.
        self._document: UUID | None = None if block._login().refresh is None else block._block_document_id
        self._deadline = 0.0
        self._own = asyncio.Lock()

    def __str__(self) -> str:
        if self._name is None:
            return f"The login of {type(self._block).__name__} that are not saved as a block"
        return f"The login in the block {self._name!r} ({type(self._block).__name__})"

    @property
    def next_step(self) -> str:
        if self._block._login().refresh is None:
            return "Correct the client id and the client secret."
        return f"Log in again by `ivcap-flows login {self._block._login_option} {self._name or 'NAME'}`."

    def token(self) -> SharedToken:
        """Return the access token, which renews itself."""
        return SharedToken(self, self._hidden(self._block._login()))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        if self._document is None:
            async with self._own:
                yield
            return
        async with lock_of_login(self._document):
            self._deadline = time.monotonic() + HELD
            yield

    async def read(self) -> Login:
        if self._document is not None:
            document = await self._read(self._document)
            try:
                self._block = type(self._block).model_validate(document.data)
            except ValidationError as error:
                wrong = "; ".join(fault["msg"] for fault in error.errors())
                raise ConfigurationError(f"{self} cannot be used any more. {wrong}") from None
        return self._hidden(self._block._login())

    async def renew(self, login: Login) -> Tokens:
        if self._document is None:
            return await self._block._renewed(login)
        await self._check_writable()
        # Another process takes the lock from one that holds it longer.
        try:
            with anyio.fail_after(self._deadline - time.monotonic()):
                return await self._block._renewed(login)
        except TimeoutError as error:
            raise UnreachableError(
                f"{self} was not renewed within {HELD:g} s. Check the network and the identity provider.",
                platform=self.platform,
                method="POST",
                path="",
                status=None,
                detail="timeout",
            ) from error

    async def write(self, tokens: Tokens) -> None:
        data = {name: secret.get_secret_value() for name, secret in self._block._changes(tokens).items()}
        if not data:
            return
        if self._document is None:
            if not self._block._refresh_once:
                return
            raise ConfigurationError(
                "only a saved block can store it. Save the credentials, and pass the block's name."
            )
        pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                await self._change(self._document, data)
            except UnreachableError as error:
                # The lock is kept meanwhile: another process would spend the refresh token that is stored.
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise ConfigurationError(str(error)) from None
                await pauses.sleep(left)
            else:
                return

    async def _check_writable(self) -> None:
        """Raise an error if the block cannot be changed: then no refresh token is spent whose successor is lost."""
        if self._document is not None and self._block._refresh_once:
            await self._change(self._document, {})

    async def _change(self, document: UUID, data: dict[str, str]) -> None:
        from prefect.client.schemas.actions import BlockDocumentUpdate

        async with self._prefect() as client:
            await client.update_block_document(document, BlockDocumentUpdate(data=data, merge_existing_data=True))

    async def _read(self, document: UUID) -> BlockDocument:
        async with self._prefect() as client:
            return await client.read_block_document(document)

    @asynccontextmanager
    async def _prefect(self) -> AsyncIterator[PrefectClient]:
        """Give the client of Prefect's API. Raises ConfigurationError and UnreachableError in place of its errors."""
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

        try:
            async with get_client() as client:
                yield client
        except ObjectNotFound:
            raise ConfigurationError(
                f"{self} is gone: the block was deleted. {self.next_step} Then start again."
            ) from None
        except Exception as error:  # noqa: BLE001 - Prefect's errors have no common base
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code in (401, 403):
                raise ConfigurationError(
                    f"{self} cannot be renewed, since Prefect refuses to read or change the block "
                    f"({error.response.status_code}). Use a key of Prefect that may change it."
                ) from None
            raise prefect_unreachable(error) from None

    @staticmethod
    def _hidden(login: Login) -> Login:
        for token in (login.access, login.refresh):
            if token is not None:
                hide(token.get_secret_value())
        return login
