"""The context of a task's body: the client for its credentials, the attempt that it is part of, and the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import BaseModel

from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.capture import acting_as, attempt_at_hand, current_attempt, journal, mark_existing, tries_around
from ivcap_flows.durable import Caller, Effect, Performed, RecordStore, look_since, perform, planning
from ivcap_flows.durable.platform_time import SPREAD, is_ahead
from ivcap_flows.errors import ForeignHandleError, InputError, NotFoundError
from ivcap_flows.handles import Handle
from ivcap_flows.identity import EMBEDDED, artifact_urns, flows_urn
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt
from ivcap_flows.journal.rows import AccountRow
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.accounts import check_account, credentials_of
from ivcap_flows.tasks.submission_limit import SubmissionLimit

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.ivcap.services import ServiceRecord
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "IvcapCall",
    "IvcapCredentialsLike",
    "ProvenaCall",
    "ProvenaCredentialsLike",
    "urn_of",
]

IvcapCredentialsLike: TypeAlias = IvcapCredentials | str | None
"""A credentials block, a block's name, or None to use the environment."""
ProvenaCredentialsLike: TypeAlias = ProvenaCredentials | str | None

T = TypeVar("T")


@dataclass(frozen=True)
class _Call:
    journal: Journal
    attempt: OpenedAttempt | None
    """None while a plan is made, since a plan is not an attempt."""
    platform: str
    account: str
    settings: Settings
    """The settings at the time when the task began."""
    client: IvcapClient | ProvenaClient

    def reuses(self, asked: bool) -> bool:
        """Return whether to reuse an earlier effect, by the settings, else by the task's argument."""
        if self.settings.pay_again:
            return False
        return asked if self.settings.reuse is None else self.settings.reuse

    @property
    def limit(self) -> SubmissionLimit | None:
        """The limit on submissions that the settings name."""
        name = self.settings.concurrency_limit
        return None if name is None else SubmissionLimit(name)

    async def perform(
        self,
        effect: Effect[T],
        *,
        idempotency_records: RecordStore | None = None,
        max_resubmits: int = 0,
    ) -> Performed[T]:
        """Cause an effect at most once, as part of this attempt."""
        if self.settings.pay_again and effect.spends and effect.once_per in ("flow", "account"):
            effect = replace(effect, once_per="run")
        if max_resubmits and await self.journal.ask(self._lacks_input, effect.request):
            # It would fail for it again, and cost again.
            max_resubmits = 0
        done = await perform(
            effect,
            Caller(self.journal, self.attempt, self.platform, self.account, self.client, tries_around()),
            idempotency_records=idempotency_records,
            max_resubmits=max_resubmits,
            max_orders=self.settings.max_orders if effect.spends else None,
        )
        urn = effect.urn(done.value)
        if done.how in ("kept", "reused") and urn is not None:
            mark_existing(urn, reused=done.how == "reused")
        if isinstance(done.value, Handle):
            done.value._how = done.in_run
        return done

    def _lacks_input(self, request: Any) -> bool:
        """Return whether an upload that a request names was found missing on the platform, and not made again yet."""
        rows = [row for urn in artifact_urns(request) for row in self.journal.intents.where(urn=urn)]
        return any(row.state == "sent" for row in rows)

    def check(self, *values: Any) -> None:
        """Raise ForeignHandleError if a handle anywhere in the values belongs to another platform."""
        for value in values:
            if isinstance(value, Handle) and value.platform != self.platform:
                raise ForeignHandleError(
                    f"{value.urn} belongs to {value.platform}, but these credentials are for {self.platform}. "
                    "Pass credentials for the platform of the handle.",
                    urn=value.urn,
                    handle_platform=value.platform,
                    platform=self.platform,
                )
            if isinstance(value, Mapping):
                self.check(*value.values())
            elif isinstance(value, list | tuple | set | frozenset):
                self.check(*value)
            elif isinstance(value, BaseModel) and not isinstance(value, Handle):
                self.check(*(inner for _, inner in value))


@dataclass(frozen=True)
class IvcapCall(_Call):
    """The context of a task that uses IVCAP."""

    client: IvcapClient

    @classmethod
    async def of(cls, credentials: IvcapCredentialsLike) -> IvcapCall:
        """Resolve the credentials within the running attempt: those given, the flow's, or the environment's."""
        attempt = await _attempt()
        credentials = credentials_of("ivcap", credentials, attempt)
        client = await ivcap_client(credentials, deployed=attempt is not None and attempt.run.deployed)
        platform, account = await client.platform(), await client.account()
        await check_account("ivcap", credentials, AccountRow(platform, account), journal(), attempt)
        if attempt is not None:
            acting_as(account, await client.account_name())
        return cls(journal(), attempt, platform, account, Settings.current(), client)

    @property
    def records(self) -> IdempotencyRecords:
        return IdempotencyRecords(self.client.aspects, self.account)

    async def service(self, name: str) -> ServiceRecord:
        """Return the service with this name or URN. Raises InputError that names similar ones, and where it looked."""
        try:
            return await self.client.services.by_name(name)
        except (InputError, NotFoundError) as error:
            folder = self.settings.embedded_in
            if folder is None or not self.platform.startswith(EMBEDDED):
                raise
            raise type(error)(
                f"{error.message} This is the embedded IVCAP in {folder}: `ivcap-flows local register` adds services, "
                "IVCAP_LOCAL_DIR names another folder, and IVCAP_URL another IVCAP.",
                **error.data,
            ) from None

    async def since(self, intent: IntentRow) -> datetime | None:
        """Return the platform's time before which the intent can have had no effect; None if it is unknown.

        While the intent has no outcome, this is the time of its idempotency record.
        """
        asserted = await self.records.asserted_at(intent.key) if intent.urn is None else None
        if asserted is not None and not is_ahead(asserted, self.client.time):
            return asserted - SPREAD
        return look_since(self.client.time, intent)


@dataclass(frozen=True)
class ProvenaCall(_Call):
    """The context of a task that uses Provena. `account` is the user name."""

    client: ProvenaClient

    @classmethod
    async def of(cls, credentials: ProvenaCredentialsLike) -> ProvenaCall:
        """Resolve the credentials within the running attempt: those given, the flow's, or the environment's."""
        attempt = await _attempt()
        credentials = credentials_of("provena", credentials, attempt)
        client = await provena_client(credentials, deployed=attempt is not None and attempt.run.deployed)
        platform, username = await client.platform(), await client.username()
        await check_account("provena", credentials, AccountRow(platform, username), journal(), attempt)
        if attempt is not None:
            acting_as(flows_urn("provena-user", username), username)
        return cls(journal(), attempt, platform, username, Settings.current(), client)


async def _attempt() -> OpenedAttempt | None:
    if planning() is not None:
        return None
    return attempt_at_hand() or await asyncio.to_thread(current_attempt)


def urn_of(value: Handle | str) -> str:
    """Return the URN of a handle, or the given URN. Raises InputError for a text that cannot be a URN."""
    if isinstance(value, Handle):
        return value.urn
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise InputError(f"Pass a handle or a URN, not {value!r}.")
    return value
