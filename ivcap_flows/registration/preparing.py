"""Prepare one model run: check all of it, then register the items and mint the datasets that Provena lacks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ivcap_flows.handles import Artifact
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.drafts import Items
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.requirements import ARTIFACT, Requirements

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal
    from ivcap_flows.registration.workflow import Register

__all__ = ["Preparing"]


@dataclass(frozen=True)
class Preparing:
    """Prepares runs for one user. `mint` finds or mints the dataset of an artifact and returns its handle."""

    requirements: Requirements
    journal: Journal
    register: Register
    mint: Callable[[Artifact, Terms | None], Awaitable[str]]

    async def prepared(self, subject: str, record: ModelRunRecord, terms: Terms | None) -> ModelRunRecord:
        """Return the record as it is sent. In the given one, artifacts stand for their datasets, and drafts for items.

        Raises InputError that names all faults, before anything is made. A run that has its end needs nothing.
        """
        drafts = self.requirements.drafts
        key = run_key(drafts.platform, drafts.account, subject, record.workflow_template_id)
        intent = await self.journal.ask(self.journal.intents.newest, key)
        if intent is not None and (intent.state == "done" or intent.given_up):
            return record
        named = await terms.registered(drafts.name) if terms is not None else None
        # What was sent has been checked, and is looked for whatever has become of its items.
        sent = intent is not None and intent.state == "sent"
        check = _nothing() if sent else self.requirements.check(record, named, key=key, subject=subject)
        items, lacking = await Items.after(check, drafts, self.register)
        whole = await items.filled(record)
        owned = await items.filled(named) if named is not None and lacking else None

        async def with_dataset(part: TemplatedDataset) -> TemplatedDataset:
            if not part.dataset_id.startswith(ARTIFACT):
                return part
            dataset = await self.mint(await self.requirements.artifact(part.dataset_id), owned)
            return part.model_copy(update={"dataset_id": dataset})

        inputs, outputs = [await all_of(with_dataset, side) for side in (whole.inputs, whole.outputs)]
        return whole.model_copy(update={"inputs": inputs, "outputs": outputs})


async def _nothing() -> frozenset[str]:
    return frozenset()
