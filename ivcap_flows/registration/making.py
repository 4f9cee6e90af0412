"""Make what registrations need and Provena lacks, after everything is checked: items, and datasets of artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pydantic import BaseModel

from ivcap_flows.handles import Artifact
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.model_runs import ModelRunEffect
from ivcap_flows.registration.requirements import Requirements, artifacts_in

if TYPE_CHECKING:
    from ivcap_flows.durable import Limit
    from ivcap_flows.journal import Journal
    from ivcap_flows.registration.workflow import Register

__all__ = ["Making", "Mint", "checked_effect", "with_datasets"]

M = TypeVar("M", bound=BaseModel)
Mint: TypeAlias = Callable[[Artifact, Terms | None], Awaitable[str]]
"""A function that finds or mints the dataset of an artifact, once, and returns its handle."""


class Making:
    """What may be made for good. Only `after` gives it, and no dataset is minted and no run is sent without it."""

    def __init__(self, requirements: Requirements, register: Register, mint: Mint) -> None:
        self._requirements, self._register, self._mint = requirements, register, mint
        self.references = requirements.references
        self._handles: dict[str, str] = {}
        self._filling = asyncio.Lock()

    @classmethod
    async def after(
        cls, check: Awaitable[object], requirements: Requirements, register: Register, mint: Mint
    ) -> Making:
        """Check everything that can be checked. Then `register` may make items, and `mint` datasets."""
        await check
        return cls(requirements, register, mint)

    async def filled(self, model: M) -> M:
        """Return the same with handles in the place of drafts, after what they stand for is registered."""
        text = model.model_dump_json(exclude_none=True)
        # Others may name drafts of their own meanwhile.
        for draft in [*self._requirements.drafts.infos]:
            if draft in text:
                text = text.replace(draft, await self._handle(draft))
        return type(model).model_validate_json(text)

    async def dataset(self, artifact: str) -> str:
        """Return the dataset of an artifact, found or minted once."""
        terms = await self.terms_for(artifact)
        handle = await self._mint(await self._requirements.artifact(artifact), terms)
        self.references.note_datasets({artifact: handle})
        return handle

    async def terms_for(self, artifact: str) -> Terms | None:
        """Return the terms, with handles in the place of drafts; None if the check has not found that it lacks a
        dataset."""
        terms = self._requirements.terms
        if terms is None or not self.references.lacking([artifact]):
            return None
        # Many datasets may need the owner, who is registered once.
        async with self._filling:
            return await self.filled(terms)

    async def whole(self, record: ModelRunRecord) -> ModelRunRecord:
        """Return a record as it is sent: with handles in the place of drafts, and datasets in that of artifacts."""
        whole = await self.filled(record)
        artifacts = artifacts_in(whole.model_dump(mode="json"))
        datasets = await all_of(self.dataset, artifacts)
        return with_datasets(whole, dict(zip(artifacts, datasets, strict=True)))

    async def _handle(self, draft: str) -> str:
        if draft not in self._handles:
            info = await self.filled(self._requirements.drafts.infos[draft])
            self._handles[draft] = await self._register(info)
        return self._handles[draft]


def with_datasets(record: ModelRunRecord, datasets: Mapping[str, str]) -> ModelRunRecord:
    """Return a record with these datasets in the place of their artifacts."""

    def side(parts: list[TemplatedDataset]) -> list[TemplatedDataset]:
        return [
            part.model_copy(update={"dataset_id": datasets.get(part.dataset_id, part.dataset_id)}) for part in parts
        ]

    return record.model_copy(update={"inputs": side(record.inputs), "outputs": side(record.outputs)})


async def checked_effect(
    subject: str,
    record: ModelRunRecord,
    requirements: Requirements,
    journal: Journal,
    *,
    register: Register,
    mint: Mint,
    limit: Limit | None = None,
    job_watch: JobWatch | None = None,
) -> ModelRunEffect:
    """Return the effect that registers one run, after all is checked, and what Provena lacks is made.

    Runs that are registered at once share a `job_watch`. In the record, artifacts may stand for datasets, and drafts
    for items. Raises InputError that names all faults, before anything is made. A run that has its end needs nothing.
    """
    drafts = requirements.drafts
    key = run_key(drafts.platform, drafts.account, subject, record.workflow_template_id)
    intent = await journal.ask(journal.intents.newest, key)
    if intent is None or not (intent.state == "done" or intent.given_up):
        # What was sent has been checked, and is looked for whatever has become of its items.
        is_sent = intent is not None and intent.state == "sent"
        check = _nothing() if is_sent else requirements.check(record, key=key, subject=subject)
        record = await (await Making.after(check, requirements, register, mint)).whole(record)
    return ModelRunEffect.of(
        subject, record, client=drafts.client, platform=drafts.platform, limit=limit, job_watch=job_watch
    )


async def _nothing() -> None: ...
