"""Items that Provena does not have yet: named first, so that all can be checked, and made only after that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ivcap_flows.identity import key_of
from ivcap_flows.provena.models import Info
from ivcap_flows.registration.registry import ItemEffect

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Drafts"]


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
