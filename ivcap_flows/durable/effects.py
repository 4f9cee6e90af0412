"""An effect: something a platform is asked to do once, and how it is found again when the reply is lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from ivcap_flows.http.concurrency_limit import ConcurrencyLimit
from ivcap_flows.identity import Scope
from ivcap_flows.journal import IntentRow, NewIntent

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ivcap_flows.handles import Handle

__all__ = ["Effect", "Found", "MatchedBy", "Performed", "Progress", "RecordStore", "Reusable"]

T = TypeVar("T")

MatchedBy = Literal["key", "content", "guess"]
"""How surely a found effect is ours: it bears our key; its content is equal and nobody else's; or it might be."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """An effect seen on the platform. `at` is when the platform took it, by which the oldest is known."""

    value: T
    urn: str
    at: datetime | None = None
    matched_by: MatchedBy = "key"


@dataclass(frozen=True)
class Performed(Generic[T]):
    """An effect that exists. "sent": by this call; "kept": known from the journal; "adopted": found on the platform;
    "reused": an earlier one of an equal request; "planned": only a placeholder, nothing was sent."""

    value: T
    how: Literal["sent", "kept", "adopted", "reused", "planned"]
    key: str


@dataclass(frozen=True)
class Reusable(Generic[T]):
    """What came of the look for an earlier effect of an equal request: the one to use, or why there is none."""

    found: Found[T] | None
    why: str


class Progress(Protocol):
    """How far a resumable effect is. `stored` is the last saved JSON value, None at the start."""

    @property
    def stored(self) -> Any: ...

    async def save(self, value: Any) -> None:
        """Write a JSON value durably before going on; JournalError if that fails."""

    async def tell(self) -> None:
        """Tell other journals what is stored, so that they can go on with it; nothing is raised where that fails."""


class RecordStore(Protocol):
    """Idempotency records on the platform: the one look-up that serves machines without a shared journal.

    They live at entity `identity.key_entity(key)` under schema `identity.INTENT_SCHEMA`. Both methods are safe to
    repeat, so an implementation retries transient failures itself; a ForbiddenError makes `perform` do without.
    """

    async def read(self, key: str) -> dict[str, Any] | None:
        """The content of the oldest active record that names an effect, else of the oldest that has begun one (has a
        `progress`), else of the oldest; None if there is none."""

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> Sequence[dict[str, Any]]:
        """Add a record, or replace the one whose `journal` is the same; what the records of other journals say, as far
        as it came to be known. Writing the same twice is harmless.

        `first`: this journal has none yet, so none needs to be looked for. The record of an effect that another
        journal's names too need not be kept.
        """


@dataclass(frozen=True, kw_only=True)
class Effect(ABC, Generic[T]):
    """What `perform` needs to know of one kind of effect. Nothing is sent before the intent is on disk.

    `request` are the encoded wire values, which with the scope and the `discriminator` make the key.
    `visibility_delay` is the time in seconds within which the platform shows an accepted request. `subject` groups
    requests that a diverging replay would exchange, such as the service of an order; `name` is what the user calls it,
    and changes no key; `spends` counts against the run's limit. `look_first`: the platform can be asked for certain, so
    it is, before the first send. `publishes_intent`: other journals are told of the intent before it; otherwise of the
    outcome alone, which is enough where it is over before they could wait for it, and two do no harm. `limit` is shared
    by all effects of its kind: `send` waits for a turn, and only then is the intent marked as sent.

    `resumable`: with progress stored, `send` is called again to go on instead of looking, from any journal that may
    read the idempotency records. Another journal that is at it is left to it for `stall_timeout` seconds from the last
    time that `remote_progress`, given its progress, told something new.

    `reuses`: an `earlier` effect of an equal request is looked for before anything is sent. `definition` is a digest of
    what is asked, for those that may be used again so.
    """

    noun: str
    request: Any
    visibility_delay: float
    scope: Scope = "run"
    discriminator: str | None = None
    subject: str | None = None
    name: str | None = None
    spends: bool = False
    look_first: bool = False
    publishes_intent: bool = True
    limit: ConcurrencyLimit | None = None
    resumable: bool = False
    stall_timeout: float = 0.0
    definition: str | None = None
    reuses: bool = False

    @abstractmethod
    async def send(self, intent: IntentRow, progress: Progress) -> T:
        """Cause the effect. `intent.key` is the key to write into names and tags. Raises a PlatformError."""

    @abstractmethod
    async def find(self, intent: IntentRow) -> Sequence[Found[T]]:
        """Look for effects of the intent, none of which is older than `look_since` says."""

    @abstractmethod
    def decode(self, outcome: Any) -> T:
        """The value from the JSON that `encode` gave."""

    @abstractmethod
    def placeholder(self, key: str) -> T:
        """The value of an effect that is only planned."""

    def encode(self, value: T) -> Any:
        """The value as JSON. By default it is a pydantic model."""
        return cast("BaseModel", value).model_dump(mode="json")

    def urn(self, value: T) -> str | None:
        """The URN of the effect, None where the platform gives none."""
        return cast("Handle", value).urn

    async def remote_progress(self, begun: Any) -> Any:
        """How far another journal's effect is, by the progress that it stored; None where nothing tells."""
        return None

    async def earlier(self, wanted: NewIntent) -> Reusable[T]:
        """Look for an earlier effect to use in the place of a new one."""
        return Reusable(None, f"no earlier {self.noun} is looked for")
