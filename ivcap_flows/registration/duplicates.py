"""Find effects that exist twice in Provena, made by two journals or after a journal was deleted or damaged.

Items of the registry have their key in their user metadata, model runs in their annotations. An artifact should have
one dataset, whoever minted it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.provena.models import DatasetInfo, Info, Item
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.subtypes import CREATABLE
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.registry import KEY_FIELD
from ivcap_flows.work.duplicates import ByKey, Duplicate

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["duplicates_in_provena"]

LOOKED_AT: Final = 500
_PAGE: Final = 100
_NEXT: Final = "Provena cannot delete them: use the first one, and note in the others that it replaces them."


async def duplicates_in_provena(client: ProvenaClient, journal: Journal) -> tuple[list[Duplicate], str]:
    """Return registry items, datasets and model runs that exist twice, and a phrase that says what was searched."""
    seen = ByKey(journal)
    minted: dict[str, list[tuple[str, str | None]]] = {}

    async def look(subtype: type[Info]) -> None:
        listed = client.registry.list(subtype, page_size=_PAGE, limit=LOOKED_AT)
        for item in [item async for item in listed][::-1]:
            # A new version copies the metadata of the version before it, including the key.
            if item.versioning_info is not None and item.versioning_info.previous_version is not None:
                continue
            key = _key_of(item)
            if key is not None:
                seen.add(key, item.id, _noun_of(item), item.display_name)
            if isinstance(item.info, DatasetInfo) and item.info.access_info_uri is not None:
                minted.setdefault(item.info.access_info_uri, []).append((item.id, key))

    subtypes: list[type[Info]] = [*CREATABLE, DatasetInfo, ModelRunInfo]
    await asyncio.gather(*map(look, subtypes))
    for uri, datasets in minted.items():
        # If this package minted one of the artifact's datasets, those that others minted are its duplicates.
        key = next((key for _, key in datasets if key is not None), None)
        for id_, own in datasets:
            if key is not None and own is None:
                seen.add(key, id_, "dataset", uri)
    steps = dict.fromkeys(("registry item", "dataset", NOUN), _NEXT)
    found = await journal.ask(seen.duplicates, steps)
    return found, f"the newest {LOOKED_AT} items of each kind in the registry"


def _noun_of(item: Item[Any]) -> str:
    if isinstance(item.info, ModelRunInfo):
        return NOUN
    return "dataset" if isinstance(item.info, DatasetInfo) else "registry item"


def _key_of(item: Item[Any]) -> str | None:
    info = item.info
    if isinstance(info, ModelRunInfo):
        return (info.record.annotations or {}).get(KEY_FIELD)
    if isinstance(info, DatasetInfo):
        return (info.collection_format.dataset_info.user_metadata or {}).get(KEY_FIELD)
    return (info.user_metadata or {}).get(KEY_FIELD)
