"""Find effects that exist twice in Provena, made by two journals or after a journal was deleted or damaged.

Items of the registry have their key in their user metadata. An artifact should have one dataset, whoever minted it.
Model runs have their key in their annotations, with the subject. Those of the user are found in the user's jobs, where
no other user's newer runs hide them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.provena.models import DatasetInfo, Info, Item
from ivcap_flows.provena.subtypes import CREATABLE
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.lookup import of_job
from ivcap_flows.registration.registry import SUBJECT_FIELD, is_version, key_of
from ivcap_flows.work.duplicates import ByKey, Duplicate

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["duplicates_in_provena"]

LOOKED_AT: Final = 500
JOBS_LOOKED_AT: Final = 1_000
_PAGE: Final = 100
_NEXT: Final = "Provena cannot delete them: use the first one, and note in the others that it replaces them."


async def duplicates_in_provena(client: ProvenaClient, journal: Journal) -> tuple[list[Duplicate], str]:
    """Return registry items, datasets and model runs that exist twice, and a phrase that says what was searched."""
    seen = ByKey(journal)
    keys: dict[str, str] = {}
    minted: dict[str, list[tuple[str, str | None]]] = {}

    async def look(subtype: type[Info]) -> None:
        listed = client.registry.list(subtype, page_size=_PAGE, limit=LOOKED_AT)
        for item in [item async for item in listed if not is_version(item)][::-1]:
            key = key_of(item)
            if key is not None:
                keys[item.id] = key
                seen.add(key, item.id, _noun_of(item), item.display_name)
            if isinstance(item.info, DatasetInfo) and item.info.access_info_uri is not None:
                minted.setdefault(item.info.access_info_uri, []).append((item.id, key))

    subtypes: list[type[Info]] = [*CREATABLE, DatasetInfo]
    await asyncio.gather(*map(look, subtypes))
    for uri, datasets in minted.items():
        # If this package minted one of the artifact's datasets, those that others minted are its duplicates.
        key = next((key for _, key in datasets if key is not None), None)
        for id_, own in datasets:
            if key is not None and own is None:
                seen.add(key, id_, "dataset", uri)
    await _model_runs(client, seen, keys)
    steps = dict.fromkeys(("registry item", "dataset", NOUN), _NEXT)
    found = await journal.ask(seen.duplicates, steps)
    return found, f"the newest {LOOKED_AT} items of each kind in the registry and your newest {JOBS_LOOKED_AT} jobs"


async def _model_runs(client: ProvenaClient, seen: ByKey, keys: dict[str, str]) -> None:
    """Add the runs that the caller's jobs have lodged. `keys` has the keys of workflow templates by their handles.

    A template that exists twice gives the runs of one subject two keys. These runs are one group, under the first key.
    """
    first: dict[tuple[str, str], str] = {}
    for job in [job async for job in client.jobs.list(page_size=_PAGE, limit=JOBS_LOOKED_AT)][::-1]:
        entry = of_job(job)
        if entry is None or not entry.handle or job.record is None:
            continue
        subject, template = (job.record.annotations or {}).get(SUBJECT_FIELD), job.record.workflow_template_id
        key = entry.key if subject is None else first.setdefault((subject, keys.get(template, template)), entry.key)
        seen.add(key, entry.handle, NOUN, job.record.display_name)


def _noun_of(item: Item[Any]) -> str:
    return "dataset" if isinstance(item.info, DatasetInfo) else "registry item"
