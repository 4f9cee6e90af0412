"""The context of a task's body: the client for its credentials, the attempt that it is part of, and the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import BaseModel

from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.blocks.resolve import ivcap_client, provena_client
from ivcap_flows.capture import acting_as, attempt_at_hand, current_attempt, journal, mark_existing, tries_around
from ivcap_flows.durable import Caller, Effect, Performed, RecordStore, look_since, perform, planning
from ivcap_flows.durable.platform_time import SPREAD, is_ahead
from ivcap_flows.errors import ForeignHandleError, InputError, IvcapFlowsError, NotFoundError, PlatformError
from ivcap_flows.handles import Handle
from ivcap_flows.identity import EMBEDDED, artifact_urns, flows_urn
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt
from ivcap_flows.journal.rows import AccountRow
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.accounts import check_account, credentials_of
from ivcap_flows.tasks.submission_limit import SubmissionLimit
from ivcap_flows.threads import alone

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.ivcap.services import ServiceRecord
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "IvcapCall",
    "IvcapCredentialsLike",
    "ProvenaCall",
    "ProvenaCredentialsLike",
    "calls_made",
    "of_deployment",
    "urn_of",
]

IvcapCredentialsLike: TypeAlias = IvcapCredentials | str | None
"""A credentials block, a block's name, or None to use the environment."""
ProvenaCredentialsLike: TypeAlias = ProvenaCredentials | str | None

T = TypeVar("T")

logger = logger_of("ivcap_flows.tasks")

_made: ContextVar[list[IvcapCall] | None] = ContextVar("made", default=None)


@contextmanager
def calls_made() -> Iterator[list[IvcapCall]]:
    """Yield the list of the contexts that the block makes: the accounts whose credentials it was given."""
    made: list[IvcapCall] = []
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)


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
        if max_resubmits and (lacking := await self._lacking(effect.request)) is not None:
            # It would fail for it again, and cost again.
            logger.warning("max_resubmits=%d does not count: %s", max_resubmits, lacking)
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

    async def _lacking(self, request: Any) -> str | None:
        """Return a sentence that names an input of a request for whose lack the work fails each time; None without."""
        return None

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
        client = await ivcap_client(credentials, deployed=of_deployment(attempt))
        platform, account = await client.platform(), await client.account()
        await check_account("ivcap", credentials, AccountRow(platform, account), journal(), attempt)
        if attempt is not None:
            acting_as(account, await client.account_name())
        call = cls(journal(), attempt, platform, account, Settings.current(), client)
        if (made := _made.get()) is not None:
            made.append(call)
        return call

    @classmethod
    async def at_hand(cls, made: Iterable[IvcapCall], platform: str, account: str) -> IvcapCall | None:
        """Return a context of an account: one of those that were made, else that of the flow's or the environment's
        credentials; None if these are another's.
        """
        for call in made:
            if (call.platform, call.account) == (platform, account):
                return call
        attempt, settings = attempt_at_hand(), Settings.current()
        credentials = credentials_of("ivcap", None, attempt)
        if credentials is None and not settings.ivcap_configured:
            # Nothing is started to find out whose it is.
            return None
        try:
            client = await ivcap_client(credentials, deployed=of_deployment(attempt))
            found = await client.platform(), await client.account()
        except IvcapFlowsError:
            return None
        return cls(journal(), attempt, *found, settings, client) if found == (platform, account) else None

    @property
    def records(self) -> IdempotencyRecords:
        return IdempotencyRecords(self.client.aspects, self.account, self.client.visibility_delay)

    async def _lacking(self, request: Any) -> str | None:
        def uploads() -> list[IntentRow]:
            return [row for urn in artifact_urns(request) for row in self.journal.intents.where(urn=urn)]

        for row in await self.journal.ask(uploads):
            if row.account == self.account and row.state == "sent":
                return f"the input {row.urn} was found missing on the platform, and is not uploaded again yet."
            if row.account != self.account and row.platform == self.platform:
                try:
                    await self.client.artifacts.read(str(row.urn))
                except NotFoundError:
                    return f"{self.account} does not see the input {row.urn}, which {row.account} made."
                except PlatformError:
                    continue
        return None

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
        client = await provena_client(credentials, deployed=of_deployment(attempt))
        platform, username = await client.platform(), await client.username()
        await check_account("provena", credentials, AccountRow(platform, username), journal(), attempt)
        if attempt is not None:
            acting_as(flows_urn("provena-user", username), username)
        return cls(journal(), attempt, platform, username, Settings.current(), client)


async def _attempt() -> OpenedAttempt | None:
    if planning() is not None:
        return None
    return attempt_at_hand() or await alone(current_attempt)


def of_deployment(attempt: OpenedAttempt | None) -> bool:
    """Return whether the run of an attempt belongs to a deployment, and so needs a platform that is named."""
    return attempt is not None and attempt.run.deployment_id is not None


def urn_of(value: Handle | str) -> str:
    """Return the URN of a handle, or the given URN. Raises InputError for a text that cannot be a URN."""
    if isinstance(value, Handle):
        return value.urn
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise InputError(f"Pass a handle or a URN, not {value!r}.")
    return value
