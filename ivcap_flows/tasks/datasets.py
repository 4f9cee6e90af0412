"""Tasks for Provena datasets: register one by its metadata, change the metadata."""

from __future__ import annotations

from typing import Any

from ivcap_flows.capture import found
from ivcap_flows.durable import Effect, Found, Progress, look_since
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Dataset
from ivcap_flows.journal import IntentRow
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.models import DatasetInfo, Item
from ivcap_flows.registration.registry import KEY_FIELD, items_since, moment, person_of
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.ensure_state import ensure_state
from ivcap_flows.tasks.items import with_package_fields
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = ["aregister_dataset", "aupdate_dataset", "register_dataset", "update_dataset"]


async def _register_dataset(metadata: CollectionFormat, *, credentials: ProvenaCredentialsLike = None) -> Dataset:
    """Mint a dataset of this metadata, once: the same metadata give the same dataset in all flows of this user.

    Its files lie in the data store (`access_info.reposited`) or elsewhere; an artifact's dataset is minted by
    `mint_dataset`. Raises InputError before sending, also for a caller without a linked person, and BadRequestError for
    what Provena refuses.
    """
    call = await ProvenaCall.of(credentials)

    async def send(intent: IntentRow, progress: Progress) -> Dataset:
        # Without a linked person Provena answers a mint with 500, which would look like a lost reply.
        await person_of(call.client, call.account)
        minted = await call.client.datastore.mint(_keyed(metadata, {KEY_FIELD: intent.key}))
        return _handle(call, minted.handle, metadata)

    async def find(intent: IntentRow) -> list[Found[Dataset]]:
        return [
            Found(_handle(call, item.id, item.info.collection_format), item.id, moment(item.created_timestamp))
            async for item in items_since(call.client, DatasetInfo, look_since(call.client.time, intent))
            if _metadata(item).get(KEY_FIELD) == intent.key
        ]

    done = await call.perform(
        Effect(
            noun="dataset",
            request={"metadata": metadata.body()},
            send=send,
            find=find,
            decode=Dataset.model_validate,
            placeholder=lambda key: _handle(call, f"urn:ivcap-flows:planned:{key}", metadata),
            visibility_delay=call.client.visibility_delay,
            scope="account",
            subject=metadata.dataset_info.name,
            limit=call.client.datastore.minting,
        )
    )
    return done.value


async def _update_dataset(
    dataset: Dataset | str, metadata: CollectionFormat, *, reason: str, credentials: ProvenaCredentialsLike = None
) -> Dataset:
    """Replace the metadata of a dataset; `reason` goes into its history.

    Idempotent: the metadata are read first, and again where a reply is lost; equal ones are not sent. The key that this
    package put into their user metadata stays there. Raises InputError before sending, NotFoundError for an unknown
    dataset, BadRequestError for what Provena refuses, NotAuthorizedError (about "item") for a locked one.
    """
    call = await ProvenaCall.of(credentials)
    call.check(dataset)
    urn = urn_of(dataset)
    if only_planned("dataset update", urn):
        return _handle(call, urn, metadata)
    before = await call.client.datastore.fetch_dataset(urn)
    wanted = _keyed(metadata, _metadata(before))
    if strange := sorted(_unknown(wanted) - _unknown(before.info.collection_format)):
        raise InputError(f"Provena does not know the fields {', '.join(strange)} of a dataset.", faults=strange)

    async def holds() -> bool:
        return (await call.client.datastore.fetch_dataset(urn)).info.collection_format.plain() == wanted.plain()

    if before.info.collection_format.plain() != wanted.plain():
        await ensure_state(lambda: call.client.datastore.update_metadata(urn, wanted, reason=reason), holds)
    found(urn)
    return _handle(call, urn, wanted)


def _handle(call: ProvenaCall, urn: str, metadata: CollectionFormat) -> Dataset:
    stated = metadata.dataset_info
    return Dataset(urn=urn, platform=call.platform, display_name=stated.name, access_uri=stated.access_info.uri)


def _metadata(item: Item[DatasetInfo]) -> dict[str, str]:
    return item.info.collection_format.dataset_info.user_metadata or {}


def _keyed(metadata: CollectionFormat, known: dict[str, str]) -> CollectionFormat:
    stated = metadata.dataset_info
    user_metadata = with_package_fields(stated.user_metadata, known)
    return metadata.model_copy(update={"dataset_info": stated.model_copy(update={"user_metadata": user_metadata})})


def _unknown(metadata: Any, place: str = "") -> set[str]:
    """The fields of a newer server anywhere in the metadata, by their paths."""
    names = {f"{place}{name}" for name in metadata.model_extra or ()}
    for name in type(metadata).model_fields:
        inner = getattr(metadata, name)
        if hasattr(inner, "model_extra"):
            names |= _unknown(inner, f"{place}{name}.")
    return names


register_dataset, aregister_dataset = task_pair(
    _register_dataset, name="Register dataset", run_name="register {metadata.dataset_info.name}"
)
update_dataset, aupdate_dataset = task_pair(_update_dataset, name="Update dataset", run_name="update {dataset}")
