"""Tasks for Provena datasets: register a dataset by its metadata, update the metadata."""

from __future__ import annotations

from typing import Any

from ivcap_flows.capture import mark_existing
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Dataset
from ivcap_flows.provena.collection_format import CollectionFormat
from ivcap_flows.provena.models import DatasetInfo, Item
from ivcap_flows.registration.registry import ItemEffect
from ivcap_flows.tasks.assets import Version, note_assets
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.ensure_state import ensure_state
from ivcap_flows.tasks.items import with_package_fields
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = ["aregister_dataset", "aupdate_dataset", "register_dataset", "update_dataset"]


async def _register_dataset(metadata: CollectionFormat, *, credentials: ProvenaCredentialsLike = None) -> Dataset:
    """Register a dataset with this metadata, once: the same metadata give the same dataset in all flows of this user.

    Its files are in Provena's data store (`access_info.reposited`) or elsewhere. For an artifact's dataset, use
    `mint_dataset`. Raises InputError before anything is sent, also if no person is linked to the caller, and
    BadRequestError if Provena refuses the metadata.
    """
    call = await ProvenaCall.of(credentials)
    if not isinstance(metadata, CollectionFormat):
        raise InputError(
            "Pass a CollectionFormat of ivcap_flows.provena.collection_format, not " + type(metadata).__name__ + "."
        )
    done = await call.perform(
        ItemEffect.of_dataset(metadata, client=call.client, platform=call.platform, account=call.account)
    )
    note_assets([Version(done.value, "datasets", new=done.how == "sent")])
    return done.value


async def _update_dataset(
    dataset: Dataset | str, metadata: CollectionFormat, *, reason: str, credentials: ProvenaCredentialsLike = None
) -> Dataset:
    """Replace the metadata of a dataset; `reason` is stored in its history.

    Idempotent: the metadata are read first, and again after a lost reply; equal metadata are not sent. The idempotency
    key in the user metadata stays. Raises InputError before anything is sent, NotFoundError for an unknown dataset,
    BadRequestError if Provena refuses the metadata, and NotAuthorizedError (about "item") for a locked dataset.
    """
    call = await ProvenaCall.of(credentials)
    call.check(dataset)
    urn = urn_of(dataset)
    if only_planned("dataset update", urn):
        return _handle(call, urn, metadata)
    before = await call.client.registry.fetch(DatasetInfo, urn)
    wanted = _keyed(metadata, _metadata(before))
    if strange := sorted(_unknown(wanted) - _unknown(before.info.collection_format)):
        raise InputError(f"Provena has no such fields in a dataset: {', '.join(strange)}. Remove them.", faults=strange)

    async def holds() -> bool:
        now = await call.client.registry.fetch(DatasetInfo, urn)
        return now.info.collection_format.plain() == wanted.plain()

    if before.info.collection_format.plain() != wanted.plain():
        await ensure_state(lambda: call.client.datastore.update_metadata(urn, wanted, reason=reason), holds)
    mark_existing(urn)
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
    """Return the paths of all fields in the metadata that this version of the package does not know."""
    names = {f"{place}{name}" for name in metadata.model_extra or ()}
    for name in type(metadata).model_fields:
        inner = getattr(metadata, name)
        if hasattr(inner, "model_extra"):
            names |= _unknown(inner, f"{place}{name}.")
    return names


register_dataset, aregister_dataset = task_pair(_register_dataset, "register {metadata.dataset_info.name}")
update_dataset, aupdate_dataset = task_pair(_update_dataset, "update {dataset}")
