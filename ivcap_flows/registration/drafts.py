"""Items that Provena does not have yet: named first, so that all can be checked, and made only after that."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from ivcap_flows.identity import key_of
from ivcap_flows.provena.models import Info
from ivcap_flows.registration.registry import ItemEffect

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.registration.workflow import Register

__all__ = ["Drafts", "Items"]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class Drafts:
    """The content of items, by stand-ins for their handles. `journal` knows those that were registered before."""

    client: ProvenaClient
    journal: Journal | None
    platform: str
    account: str
    infos: dict[str, Info] = field(default_factory=dict)

    @classmethod
    async def of(cls, client: ProvenaClient, journal: Journal | None) -> Drafts:
        return cls(client, journal, await client.platform(), await client.username())

    async def name(self, info: Info) -> str:
        """Return the handle of content that was registered before, else a stand-in for it; nothing is sent.

        Raises InputError that lists what Provena would refuse in the content.
        """
        effect = ItemEffect.of(info, client=self.client, platform=self.platform, account=self.account)
        key = key_of(
            platform=self.platform,
            account=self.account,
            scope=effect.once_per,
            noun=effect.noun,
            request=effect.request,
        )
        known = None if self.journal is None else await self.journal.ask(self.journal.intents.newest, key)
        if known is not None and known.state == "done" and known.urn is not None:
            return known.urn
        stand_in = effect.placeholder(key).urn
        self.infos[stand_in] = info
        return stand_in


class Items:
    """What may be made for good. Only `after` gives it, and no dataset is minted and no run is sent without it."""

    def __init__(self, drafts: Drafts, register: Register) -> None:
        self._drafts, self._register = drafts, register
        self._handles: dict[str, str] = {}

    @classmethod
    async def after(cls, check: Awaitable[T], drafts: Drafts, register: Register) -> tuple[Items, T]:
        """Check everything that can be checked, and return what was found out. Then the drafts may be registered."""
        found = await check
        return cls(drafts, register), found

    async def filled(self, model: M) -> M:
        """Return the same with handles in the place of stand-ins, after what they stand for is registered."""
        text = model.model_dump_json(exclude_none=True)
        for stand_in in self._drafts.infos:
            if stand_in in text:
                text = text.replace(stand_in, await self._handle(stand_in))
        return type(model).model_validate_json(text)

    async def _handle(self, stand_in: str) -> str:
        if stand_in not in self._handles:
            self._handles[stand_in] = await self._register(await self.filled(self._drafts.infos[stand_in]))
        return self._handles[stand_in]
