"""Tasks for Provena's registry: create an item once, mint an artifact's dataset once, find the caller's person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ivcap_flows.capture import found
from ivcap_flows.durable import Effect, Found, Progress
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Dataset, RegistryItem
from ivcap_flows.identity import Scope
from ivcap_flows.journal import IntentRow
from ivcap_flows.provena.datasets import DatasetDefaults
from ivcap_flows.provena.models import Info, Item, Person
from ivcap_flows.registration.registry import KEY_FIELD, DatasetEffect, items_of, moment, person_of
from ivcap_flows.tasks.assets import Version, note_assets
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike
from ivcap_flows.tasks.pair import task_pair

__all__ = [
    "alinked_person",
    "amint_dataset",
    "aregister_item",
    "linked_person",
    "mint_dataset",
    "register_item",
]


async def _register_item(info: Info, *, credentials: ProvenaCredentialsLike = None) -> RegistryItem:
    """Create an item of Provena's registry (a model, template, organisation, person or study), once per content.

    The same content always gives the same item, in any flow of this user. Raises InputError before anything is sent,
    and BadRequestError if Provena refuses the item, for example because no person is linked to the caller.
    """
    call = await ProvenaCall.of(credentials)
    if not isinstance(info, Info):
        raise InputError(
            f"Pass a statement of ivcap_flows.provena.models, such as Model or Organisation, not {type(info).__name__}."
        )
    done = await call.perform(
        ItemEffect(
            call=call,
            info=info,
            request={"subtype": info.subtype, "info": info.body()},
            visibility_delay=call.client.visibility_delay,
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
    """Return the external dataset of an artifact; mint it once if there is none. Its `access_info.uri` is the URN.

    If the caller can read an external dataset with that URI, it is the result, whoever minted it. Otherwise `datasets`
    must state owner, publisher, licence and approvals; InputError names the missing values.
    """
    call = await ProvenaCall.of(credentials)
    done = await call.perform(
        DatasetEffect.of(artifact, datasets, client=call.client, platform=call.platform, account=call.account)
    )
    told = {"artifact": artifact.urn, "artifact_sha256": artifact.sha256}
    note_assets([Version(done.value, "datasets", new=done.how == "sent", facts=told)], inputs=[artifact.urn])
    return done.value


async def _linked_person(*, credentials: ProvenaCredentialsLike = None) -> RegistryItem:
    """Return the Person that is linked to the caller. Raises InputError, with the next step, if there is none."""
    call = await ProvenaCall.of(credentials)
    person = _item(call, await call.client.registry.fetch(Person, await person_of(call.client, call.account)))
    found(person.urn)
    return person


@dataclass(frozen=True, kw_only=True)
class ItemEffect(Effect[RegistryItem]):
    """Creating an item of the registry. Its user metadata contain the key."""

    noun: str = "registry item"
    scope: Scope = "account"
    bears_key: bool = True
    call: ProvenaCall
    info: Info

    async def send(self, intent: IntentRow, progress: Progress) -> RegistryItem:
        metadata = {**(self.info.user_metadata or {}), KEY_FIELD: intent.key}
        marked = self.info.model_copy(update={"user_metadata": metadata})
        created = await self.call.client.registry.create(type(self.info), marked)
        return _item(self.call, created.item)

    async def find(self, intent: IntentRow) -> list[Found[RegistryItem]]:
        return [
            Found(_item(self.call, item), item.id, moment(item.created_timestamp))
            async for item in items_of(self.call.client, type(self.info), intent, self.call.account)
        ]

    def decode(self, outcome: Any) -> RegistryItem:
        return RegistryItem.model_validate(outcome)

    def placeholder(self, key: str) -> RegistryItem:
        urn = f"urn:ivcap-flows:planned:{key}"
        return RegistryItem(urn=urn, platform=self.call.platform, subtype=self.info.subtype)


def _item(call: ProvenaCall, item: Item[Any]) -> RegistryItem:
    return RegistryItem(
        urn=item.id, platform=call.platform, subtype=item.info.subtype, display_name=item.info.display_name
    )


register_item, aregister_item = task_pair(_register_item, name="Register item", run_name="register {info.display_name}")
mint_dataset, amint_dataset = task_pair(_mint_dataset, name="Mint dataset", run_name="mint dataset of {artifact}")
linked_person, alinked_person = task_pair(_linked_person, name="Look up person", run_name="look up the linked person")
