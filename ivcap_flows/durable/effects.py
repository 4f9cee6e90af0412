"""Effects: what a platform is to do once, and how to find that again when the reply is lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from ivcap_flows.durable.platform_time import PlatformClock
from ivcap_flows.durable.scopes import Tries
from ivcap_flows.identity import How, OncePer
from ivcap_flows.journal import IntentRow, Journal, NewIntent, OpenedAttempt

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ivcap_flows.handles import Handle

__all__ = ["Caller", "Effect", "Found", "Limit", "MatchedBy", "Performed", "RecordStore", "Resume", "Reusable"]

T = TypeVar("T")

MatchedBy = Literal["key", "content", "guess"]
"""Why a found effect counts as ours: it has our key; its content is equal, and no other key has claimed it; or its
content is equal, but it may be somebody else's."""


@dataclass(frozen=True)
class Caller:
    """For whom an effect is caused: the attempt of a run, or none, and the account on a platform.

    `clock` gives the platform's time, which bounds how far back and how long to look for an effect; without it, all
    effects on the platform are considered. `tries` are the task runs in which the call is made.
    """

    journal: Journal
    attempt: OpenedAttempt | None
    platform: str
    account: str
    clock: PlatformClock | None = None
    tries: Tries = ()


@dataclass(frozen=True)
class Found(Generic[T]):
    """An effect that was seen on the platform. `at` is when the platform accepted it; the oldest effect counts."""

    value: T
    urn: str
    at: datetime | None = None
    matched_by: MatchedBy = "key"


@dataclass(frozen=True)
class Performed(Generic[T]):
    """The result of `perform`, an effect that exists.

    "sent": by this call; "kept": known from the journal; "adopted": found on the platform; "reused": an earlier one of
    an equal request; "planned": only a placeholder, nothing was sent. `in_run` says the same of the logical run, so it
    is the same in each of its attempts: "sent" if any of them requested it, however its reply came.
    """

    value: T
    how: How
    key: str
    in_run: How


@dataclass(frozen=True)
class Reusable(Generic[T]):
    """The result of looking for an earlier effect of an equal request: the one to use, and why it or none is used."""

    found: Found[T] | None
    why: str


class Resume(Protocol):
    """The progress of a resumable effect. `stored` is the last saved JSON value, None at the start."""

    @property
    def stored(self) -> Any: ...

    async def save(self, value: Any) -> None:
        """Write a JSON value durably before the next step. Raise JournalError if that fails."""


class RecordStore(Protocol):
    """The idempotency records on a platform, by which machines without a shared journal find each other's effects.

    A record has the entity `identity.key_entity(key)` and the schema `identity.INTENT_SCHEMA`. All methods are safe to
    repeat, so an implementation retries transient failures itself. After a ForbiddenError, `perform` works without
    records.
    """

    shows_within: float
    """Seconds for which `write` may look for what it has added."""

    async def read(self, key: str) -> Sequence[dict[str, Any]]:
        """Return the contents of the active records, oldest first."""

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> Sequence[dict[str, Any]]:
        """Add a record unless those that are there say as much. Return the contents of all afterwards, oldest first.

        They have the new one, and so all before it, unless the platform does not list it within `shows_within`. A
        record that names an effect stays, whoever wrote it. With `first`, nothing is known to be there.
        """

    async def equal(self, key: str, noun: str, request_sha256: str) -> Sequence[dict[str, Any]] | None:
        """Return the contents of the active records of an equal request, under any key, that may have been written
        since the oldest record under `key`. None if they are too many to be read.
        """


class Limit(Protocol):
    """A limit on how many effects are requested at the same time."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait until one more effect may be requested, in the block."""


@dataclass(frozen=True, kw_only=True)
class Effect(ABC, Generic[T]):
    """One effect, with what `perform` needs to cause it and to find it again.

    - `request`: the encoded wire values. With the scope and the `discriminator` they make the key.
    - `visibility_delay`: the seconds within which the platform shows an accepted request.
    - `subject`: groups requests that a diverging replay would exchange, such as the service of an order.
    - `name`: the user's name for the effect; not a part of the key.
    - `spends`: whether the effect counts against the run's limit.
    - `look_first`: look for the effect before the first send, since the platform's answer is certain.
    - `bears_key`: the effect shows its key on the platform. One that the journal does not know, or knows to be refused
      or failed, is looked for before it is sent, since another journal may have made it; not if the user has decided
      that it is sent. `find` limits the look for an intent that was not sent.
    - `limit`: shared by all effects of a kind. An effect waits for its turn, and only then is marked as sent. The turn
      lasts until the reply, or until progress is stored.
    - `resumable`: if progress is stored, continue with `send` instead of looking.
    - `announced`: its idempotency record, if it has one, is written before the first send, so that another journal
      waits. Otherwise it is written with the outcome: two journals that work on it at the same moment make two equal
      things, and both take the one that the oldest record names.
    - `definition`: a digest of what the request refers to, for effects that may be reused.
    - `reuses`: look for an `earlier` effect of an equal request before anything is sent.
    """

    noun: str
    request: Any
    visibility_delay: float
    once_per: OncePer = "run"
    discriminator: str | None = None
    subject: str | None = None
    name: str | None = None
    spends: bool = False
    look_first: bool = False
    bears_key: bool = False
    limit: Limit | None = None
    resumable: bool = False
    announced: bool = True
    definition: str | None = None
    reuses: bool = False

    @abstractmethod
    async def send(self, intent: IntentRow, progress: Resume) -> T:
        """Cause the effect, and write `intent.key` into its name or tags. Raise a PlatformError if that fails."""

    @abstractmethod
    async def find(self, intent: IntentRow) -> Sequence[Found[T]]:
        """Look for effects of the intent on the platform. None of them is older than `look_since` returns."""

    @abstractmethod
    def decode(self, outcome: Any) -> T:
        """Return the value of the JSON that `encode` returned."""

    @abstractmethod
    def placeholder(self, key: str) -> T:
        """Return the value of an effect that is only planned."""

    def encode(self, value: T) -> Any:
        """Return the value as JSON. By default the value is a pydantic model."""
        return cast("BaseModel", value).model_dump(mode="json")

    def urn(self, value: T) -> str | None:
        """Return the URN of the effect, or None if the platform assigns none."""
        return cast("Handle", value).urn

    async def earlier(self, wanted: NewIntent) -> Reusable[T]:
        """Look for an earlier effect to use instead of a new one."""
        return Reusable(None, f"no earlier {self.noun} is looked for")
