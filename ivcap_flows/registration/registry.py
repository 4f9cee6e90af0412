"""What registrations need of Provena's registry: items once per content, an artifact's dataset, the caller's person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ivcap_flows.durable import Caller, Effect, Found, Resume, look_since, perform
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Dataset, Handle, RegistryItem
from ivcap_flows.identity import KEY_FIELD, OncePer, made_for_trial
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.models import DatasetInfo, Info, Item, Organisation, Person
from ivcap_flows.provena.terms import Terms, collection_format

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "ATTEMPTS_FIELD",
    "FIRST_LOOK",
    "KEY_FIELD",
    "PACKAGE_FIELDS",
    "SOFTWARE_FIELD",
    "SUBJECT_FIELD",
    "DatasetEffect",
    "Effects",
    "ItemEffect",
    "check_caller",
    "dataset_of",
    "is_version",
    "items_of",
    "key_of",
    "moment",
    "person_of",
    "refuse_trial",
    "trial_of",
]

H = TypeVar("H", bound=RegistryItem)

SUBJECT_FIELD: Final = "ivcap-subject"
"""The annotation with the subject of a run, such as an order's URN, if the subject is not only its record."""

ATTEMPTS_FIELD: Final = "ivcap-flows-attempts"
"""The annotation that lists the attempts of a run if some failed before the one that succeeded."""

SOFTWARE_FIELD: Final = "ivcap-flows-software"
"""The annotation that names the software that ran the work and registered it: Provena's modeller is a person."""

PACKAGE_FIELDS: Final = frozenset({KEY_FIELD, SUBJECT_FIELD, ATTEMPTS_FIELD, SOFTWARE_FIELD})
"""All fields that this package itself writes into annotations and user metadata."""

FIRST_LOOK: Final = 500
"""How many of the newest jobs or items are read before a request that the journal does not know is sent."""


@dataclass(frozen=True, kw_only=True)
class ItemEffect(Effect[H]):
    """Creating an item of the registry, or minting a dataset, once per content. Its user metadata contain the key."""

    noun: str = "registry item"
    once_per: OncePer = "account"
    bears_key: bool = True
    kind: type[H]
    info: Info
    client: ProvenaClient
    platform: str
    account: str

    @classmethod
    def of(cls, info: Info, *, client: ProvenaClient, platform: str, account: str) -> ItemEffect[RegistryItem]:
        """Raises InputError that lists what Provena would refuse in the content."""
        return ItemEffect(
            kind=RegistryItem,
            info=info,
            client=client,
            platform=platform,
            account=account,
            request={"subtype": info.subtype, "info": info.body()},
            visibility_delay=client.visibility_delay,
            subject=info.display_name,
        )

    @classmethod
    def of_dataset(
        cls, metadata: CollectionFormat, *, client: ProvenaClient, platform: str, account: str
    ) -> ItemEffect[Dataset]:
        """Raises InputError that lists what Provena would refuse in the metadata."""
        name = metadata.dataset_info.name
        return ItemEffect(
            noun="dataset",
            kind=Dataset,
            info=DatasetInfo(display_name=name, collection_format=metadata),
            client=client,
            platform=platform,
            account=account,
            request={"metadata": metadata.body()},
            visibility_delay=client.visibility_delay,
            subject=name,
            limit=client.datastore.minting,
        )

    async def send(self, intent: IntentRow, progress: Resume) -> H:
        # Provena answers 500 to a user whom it refuses, which leaves a doubt. So check first.
        await check_caller(self.client, self.account, person=not isinstance(self.info, Organisation | Person))
        if isinstance(self.info, DatasetInfo):
            minted = await self.client.datastore.mint(_with_key(self.info.collection_format, intent.key))
            return self._handle(minted.handle, self.info)
        metadata = {**(self.info.user_metadata or {}), KEY_FIELD: intent.key}
        marked = self.info.model_copy(update={"user_metadata": metadata})
        created = await self.client.registry.create(type(self.info), marked)
        return self._handle(created.item.id, created.item.info)

    async def find(self, intent: IntentRow) -> list[Found[H]]:
        return [
            Found(self._handle(item.id, item.info), item.id, moment(item.created_timestamp))
            async for item in items_of(self.client, type(self.info), intent, self.account)
        ]

    def decode(self, outcome: Any) -> H:
        return self.kind.model_validate(outcome)

    def placeholder(self, key: str) -> H:
        return self._handle(f"urn:ivcap-flows:planned:{key}", self.info)

    def _handle(self, id: str, info: Info) -> H:  # noqa: A002 - the platform's own word
        more: dict[str, str | None] = {"subtype": info.subtype}
        if isinstance(info, DatasetInfo):
            more = {"access_uri": info.collection_format.dataset_info.access_info.uri}
        return self.kind(urn=id, platform=self.platform, display_name=info.display_name, **more)


@dataclass(frozen=True, kw_only=True)
class DatasetEffect(Effect[Dataset]):
    """Minting an artifact's external dataset, unless the caller can read one already, whoever minted it.

    Minting raises InputError, which names the values missing in `terms`, and if no person is linked to the caller.
    """

    noun: str = "dataset"
    once_per: OncePer = "account"
    look_first: bool = True
    artifact: Artifact
    terms: Terms | None
    client: ProvenaClient
    platform: str
    account: str

    @classmethod
    def of(
        cls, artifact: Artifact, terms: Terms | None, *, client: ProvenaClient, platform: str, account: str
    ) -> DatasetEffect:
        return cls(
            artifact=artifact,
            terms=terms,
            client=client,
            platform=platform,
            account=account,
            request={"access-uri": artifact.urn},
            visibility_delay=client.visibility_delay,
            subject=artifact.name or artifact.urn,
            limit=client.datastore.minting,
        )

    async def send(self, intent: IntentRow, progress: Resume) -> Dataset:
        # Provena answers 500 to a user whom it refuses, which leaves a doubt. So check first.
        await check_caller(self.client, self.account, person=True)
        refuse_trial(self.platform, self.artifact)
        statement = collection_format(self.artifact, self.terms, user_metadata={KEY_FIELD: intent.key})
        minted = await self.client.datastore.mint(statement)
        return self._handle(minted.handle, self.artifact.name)

    async def find(self, intent: IntentRow) -> list[Found[Dataset]]:
        return [
            Found(self._handle(item.id, item.info.display_name), item.id, moment(item.created_timestamp))
            async for item in _datasets_of(self.client, self.artifact.urn)
        ]

    def decode(self, outcome: Any) -> Dataset:
        return Dataset.model_validate(outcome)

    def placeholder(self, key: str) -> Dataset:
        return self._handle(f"urn:ivcap-flows:planned:{key}", None)

    def _handle(self, id: str, name: str | None) -> Dataset:  # noqa: A002 - the platform's own word
        return Dataset(urn=id, platform=self.platform, display_name=name, access_uri=self.artifact.urn)


@dataclass(frozen=True)
class Effects:
    """Makes items and datasets, each once, as part of an attempt or of none."""

    caller: Caller
    client: ProvenaClient

    async def item(self, info: Info) -> str:
        """Create an item of the registry and return its handle."""
        return (await perform(ItemEffect.of(info, **self._whose), self.caller)).value.urn

    async def dataset(self, artifact: Artifact, terms: Terms | None) -> str:
        """Find or mint the dataset of an artifact and return its handle."""
        return (await perform(DatasetEffect.of(artifact, terms, **self._whose), self.caller)).value.urn

    @property
    def _whose(self) -> dict[str, Any]:
        return {"client": self.client, "platform": self.caller.platform, "account": self.caller.account}


async def dataset_of(client: ProvenaClient, artifact: str) -> str | None:
    """Return the handle of an artifact's first external dataset, or None if the caller can read none."""
    async for item in _datasets_of(client, artifact):
        return item.id
    return None


async def _datasets_of(client: ProvenaClient, artifact: str) -> AsyncIterator[Item[DatasetInfo]]:
    """Yield the external datasets whose access URI is the artifact's URN."""
    listed = client.registry.list(DatasetInfo, sort="ACCESS_INFO_URI_BEGINS_WITH", begins_with=artifact, ascending=True)
    async for item in listed:
        if item.info.access_info_uri == artifact:
            yield item


async def person_of(client: ProvenaClient, account: str) -> str:
    """Return the id of the Person that is linked to the caller. Raises InputError, with the next step, if none is."""
    person = await client.auth_api.linked_person()
    if person is None:
        raise InputError(
            f"The Provena user {account} is not linked to a Person, which most registrations need. Register one "
            "and link it in Provena's web interface (your profile).",
            username=account,
        )
    return person


async def check_caller(client: ProvenaClient, account: str, *, person: bool) -> None:
    """Raise InputError, with the next step, unless the caller may write; with `person`, what needs a linked Person."""
    if await client.email() is None:
        raise InputError(
            f"The token of the Provena user {account} has no e-mail address, without which Provena lets nobody write. "
            "Ask an administrator of its realm to add one, or log in with a client that has the scope `email`.",
            username=account,
        )
    if person:
        await person_of(client, account)


def trial_of(urn: str) -> str:
    """Return why nothing of what an embedded IVCAP made is registered with another Provena."""
    return (
        f"{urn} was made on an embedded IVCAP, and what another Provena gets of such a trial stays there for ever. "
        "Register it with the embedded Provena, or do the work on the real IVCAP"
    )


def refuse_trial(platform: str, *works: Handle) -> None:
    """Raise InputError if work was done on an embedded IVCAP, and the Provena of this id is not of the same."""
    for work in works:
        if made_for_trial(work.platform, platform):
            raise InputError(f"{trial_of(work.urn)}.", urn=work.urn)


async def items_of(
    client: ProvenaClient, subtype: type[Info], intent: IntentRow, account: str
) -> AsyncIterator[Item[Any]]:
    """Yield the account's items that have the key of an intent, newest first: among all since the intent, or before its
    first send among the newest of the subtype, since another journal may have made one."""
    unsent, since = intent.state == "claimed", look_since(client.time, intent)
    listed = client.registry.list(subtype, sort="CREATED_TIME", page_size=100, limit=FIRST_LOOK if unsent else None)
    async for item in listed:
        made = moment(item.created_timestamp)
        if not unsent and since is not None and made is not None and made < since:
            return
        if key_of(item) == intent.key and item.owner_username == account and not is_version(item):
            yield item


def is_version(item: Item[Any]) -> bool:
    """Return whether an item is a new version of another, from which it has its metadata and so the key."""
    return item.versioning_info is not None and item.versioning_info.previous_version is not None


def key_of(item: Item[Any]) -> str | None:
    """Return the key in the user metadata of an item."""
    info = item.info
    if isinstance(info, DatasetInfo):
        return (info.collection_format.dataset_info.user_metadata or {}).get(KEY_FIELD)
    return (info.user_metadata or {}).get(KEY_FIELD)


def _with_key(metadata: CollectionFormat, key: str) -> CollectionFormat:
    stated = metadata.dataset_info
    marked = stated.model_copy(update={"user_metadata": {**(stated.user_metadata or {}), KEY_FIELD: key}})
    return metadata.model_copy(update={"dataset_info": marked})


def moment(seconds: int | None) -> datetime | None:
    """Convert Provena's Unix seconds to a time in UTC; None for None or 0."""
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
