"""Tasks for Provena's registry: create an item once, mint an artifact's dataset once, tell who the caller is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from ivcap_flows.capture import found
from ivcap_flows.durable import Effect, Found, Progress
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Dataset, RegistryItem
from ivcap_flows.journal import IntentRow
from ivcap_flows.provena.datasets import DatasetDefaults, collection_format
from ivcap_flows.provena.models import DatasetInfo, Info, Item, Person
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike
from ivcap_flows.tasks.pair import task_pair

__all__ = [
    "KEY_FIELD",
    "alinked_person",
    "amint_dataset",
    "aregister_item",
    "linked_person",
    "mint_dataset",
    "register_item",
]

KEY_FIELD: Final = "ivcap-flows-key"
"""The user metadata and annotation that bears the key, by which an item or a run is found again."""

_CLOCKS: Final = timedelta(minutes=5)
"""By how much this machine's clock and Provena's may differ."""


async def _register_item(info: Info, *, credentials: ProvenaCredentialsLike = None) -> RegistryItem:
    """Create an item of Provena's registry (a model, template, organisation, person or study), once per statement.

    The same statements give the same item for ever, in any flow of this user. Raises InputError before sending, and
    BadRequestError for what Provena refuses, such as a caller that is not linked to a person.
    """
    call = await ProvenaCall.of(credentials)

    async def send(intent: IntentRow, progress: Progress) -> RegistryItem:
        marked = info.model_copy(update={"user_metadata": {**(info.user_metadata or {}), KEY_FIELD: intent.key}})
        created = await call.client.registry.create(type(info), marked)
        return _item(call, created.item)

    async def find(intent: IntentRow) -> list[Found[RegistryItem]]:
        return [
            Found(_item(call, item), item.id, _moment(item))
            async for item in items_since(call, type(info), intent.created_at)
            if (item.info.user_metadata or {}).get(KEY_FIELD) == intent.key
        ]

    done = await call.perform(
        Effect(
            noun="registry item",
            request={"subtype": info.subtype, "info": info.body()},
            send=send,
            find=find,
            decode=RegistryItem.model_validate,
            placeholder=lambda key: RegistryItem(
                urn=f"urn:ivcap-flows:planned:{key}", platform=call.platform, subtype=info.subtype
            ),
            settle=call.client.settle,
            scope="account",
            subject=info.display_name,
        )
    )
    return done.value


async def _mint_dataset(
    artifact: Artifact,
    *,
    datasets: DatasetDefaults | None = None,
    credentials: ProvenaCredentialsLike = None,
) -> Dataset:
    """The external dataset of an artifact, minted once: `access_info.uri` is the artifact's URN.

    An external dataset of that URI that the caller can read is the result, whoever minted it. Without one,
    `datasets` must state owner, publisher, licence and approvals; InputError names what nobody has stated.
    """
    call = await ProvenaCall.of(credentials)

    async def find(intent: IntentRow) -> list[Found[Dataset]]:
        listed = call.client.registry.list(
            DatasetInfo, sort="ACCESS_INFO_URI_BEGINS_WITH", begins_with=artifact.urn, ascending=True
        )
        return [
            Found(_dataset(call, item, artifact), item.id, _moment(item))
            async for item in listed
            if item.info.access_info_uri == artifact.urn
        ]

    async def send(intent: IntentRow, progress: Progress) -> Dataset:
        # Without a linked person Provena answers a mint with 500, which would look like a lost reply.
        await _person_of(call)
        statement = collection_format(artifact, datasets, user_metadata={KEY_FIELD: intent.key})
        minted = await call.client.datastore.mint(statement)
        return Dataset(urn=minted.handle, platform=call.platform, display_name=artifact.name, access_uri=artifact.urn)

    done = await call.perform(
        Effect(
            noun="dataset",
            request={"access-uri": artifact.urn},
            send=send,
            find=find,
            decode=Dataset.model_validate,
            placeholder=lambda key: Dataset(
                urn=f"urn:ivcap-flows:planned:{key}", platform=call.platform, access_uri=artifact.urn
            ),
            settle=call.client.settle,
            scope="account",
            subject=artifact.name or artifact.urn,
            look_first=True,
        )
    )
    return done.value


async def _linked_person(*, credentials: ProvenaCredentialsLike = None) -> RegistryItem:
    """The Person that the caller is linked to. InputError, with the next step, for a caller without one."""
    call = await ProvenaCall.of(credentials)
    person = _item(call, await call.client.registry.fetch(Person, await _person_of(call)))
    found(person.urn)
    return person


async def _person_of(call: ProvenaCall) -> str:
    person = await call.client.auth_api.linked_person()
    if person is None:
        raise InputError(
            f"The Provena user {call.account} is not linked to a Person, which most registrations need. Register one "
            "and link it in Provena's web interface (your profile).",
            username=call.account,
        )
    return person


async def items_since(call: ProvenaCall, subtype: type[Any], since: datetime) -> AsyncIterator[Item[Any]]:
    """Registry items that are not older than `since`, newest first."""
    async for item in call.client.registry.list(subtype, sort="CREATED_TIME"):
        made = _moment(item)
        if made is not None and made < since - _CLOCKS:
            return
        yield item


def _item(call: ProvenaCall, item: Item[Any]) -> RegistryItem:
    return RegistryItem(
        urn=item.id, platform=call.platform, subtype=item.info.subtype, display_name=item.info.display_name
    )


def _dataset(call: ProvenaCall, item: Item[Any], artifact: Artifact) -> Dataset:
    return Dataset(urn=item.id, platform=call.platform, display_name=item.info.display_name, access_uri=artifact.urn)


def _moment(item: Item[Any]) -> datetime | None:
    return datetime.fromtimestamp(item.created_timestamp, timezone.utc) if item.created_timestamp else None


register_item, aregister_item = task_pair(_register_item, name="Register item", run_name="register {info.display_name}")
mint_dataset, amint_dataset = task_pair(_mint_dataset, name="Mint dataset", run_name="mint dataset of {artifact}")
linked_person, alinked_person = task_pair(_linked_person, name="Look up person", run_name="look up the linked person")
