"""Register a run, and its orders and jobs, as model runs: as a mapping's entry says, and as the task would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ivcap_flows.durable import Effect, Performed, perform
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal.states import DONE
from ivcap_flows.provena.models import ModelRunRecord, TemplatedDataset
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.registration.flow_runs import (
    SOFTWARE,
    after_failures,
    artifact_on_record,
    run_inputs,
    run_outputs,
    run_record,
)
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.mapping import MappingEntry
from ivcap_flows.registration.model_runs import ModelRunEffect, check_ended, model_run_record
from ivcap_flows.registration.registry import ATTEMPTS_FIELD, SOFTWARE_FIELD, DatasetEffect, person_of
from ivcap_flows.registration.requirements import ARTIFACT, Requirements
from ivcap_flows.registration.values import WorkRecord
from ivcap_flows.registration.work import annotations_of, inputs_of, outputs_of

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, OpenedAttempt
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Registrar"]

T = TypeVar("T")


@dataclass(frozen=True)
class Registrar:
    """Registers with one user's client, as part of an attempt. `graph` has what is known of the run."""

    client: ProvenaClient
    journal: Journal
    attempt: OpenedAttempt
    graph: Graph
    platform: str
    account: str
    requirements: Requirements

    async def register(
        self, work: Order | Job, entry: MappingEntry, earlier: Sequence[str] = ()
    ) -> Performed[ModelRun]:
        """Register the model run of succeeded work, and before it the datasets of its artifacts.

        `earlier` are the outcomes of earlier requests for the same that failed. Raises InputError for facts that nobody
        has stated, and RegistrationFailedError with Provena's reason.
        """
        check_ended(work)
        known = WorkRecord.of_work(work, self.graph)
        said = {SOFTWARE_FIELD: f"{work.service_name or work.service}, asked by {SOFTWARE}"}
        if earlier:
            said[ATTEMPTS_FIELD] = "; ".join([*(f"{n}: {each}" for n, each in enumerate(earlier, 1)), "then succeeded"])
        record = model_run_record(
            work,
            workflow_template=entry.workflow_template,
            modeller=await self._modeller(entry),
            inputs=inputs_of(work, entry, known),
            outputs=outputs_of(work, entry, known),
            display_name=known.text_if(entry.display_name),
            model_version=known.text_if(entry.model_version),
            annotations={**said, **annotations_of(entry, known)},
            organisation=entry.organisation,
            study=entry.study,
        )
        named = record.model_copy(update={"display_name": record.display_name + after_failures(earlier)})
        return await self._registered(work.urn, named, entry, work)

    async def register_run(self, attempts: Sequence[AttemptRow], entry: MappingEntry) -> Performed[ModelRun]:
        """Register the model run of the completed run, and before it the datasets of its artifacts. Raises as above."""
        run = self.attempt.run
        known = WorkRecord.of_run(run, attempts, self.graph)
        record = run_record(
            run,
            attempts,
            entry,
            known,
            modeller=await self._modeller(entry),
            inputs=run_inputs(run, entry, known),
            outputs=run_outputs(entry, known),
        )
        return await self._registered(flows_urn("run", run.id), record, entry)

    async def _registered(
        self, subject: str, record: ModelRunRecord, entry: MappingEntry, work: Order | Job | None = None
    ) -> Performed[ModelRun]:
        """Register the model run of a record in which artifacts stand for their datasets."""
        if not await self._is_done(subject, record):
            # A dataset cannot be deleted, so none is minted for a model run that would be refused.
            await self.requirements.check(record)
        sides = {side: await self._datasets(getattr(record, side), entry, work) for side in ("inputs", "outputs")}
        whole = record.model_copy(update=sides)
        return await self._perform(ModelRunEffect.of(subject, whole, client=self.client, platform=self.platform))

    async def _is_done(self, subject: str, record: ModelRunRecord) -> bool:
        key = run_key(self.platform, self.account, subject, record.workflow_template_id)
        intent = await self.journal.ask(self.journal.intents.newest, key)
        return intent is not None and intent.state in DONE

    async def _modeller(self, entry: MappingEntry) -> str:
        return entry.modeller or await person_of(self.client, self.account)

    async def _datasets(
        self, parts: Sequence[TemplatedDataset], entry: MappingEntry, work: Order | Job | None
    ) -> list[TemplatedDataset]:
        products = {each.urn: each for each in work.products} if work is not None else {}
        platform = work.platform if work is not None else None
        made = []
        for part in parts:
            urn = part.dataset_id
            if urn.startswith(ARTIFACT):
                artifact = products.get(urn) or artifact_on_record(urn, self.graph, platform)
                effect = DatasetEffect.of(
                    artifact, entry.datasets, client=self.client, platform=self.platform, account=self.account
                )
                urn = (await self._perform(effect)).value.urn
            made.append(part.model_copy(update={"dataset_id": urn}))
        return made

    async def _perform(self, effect: Effect[T]) -> Performed[T]:
        return await perform(
            effect,
            journal=self.journal,
            attempt=self.attempt,
            platform=self.platform,
            account=self.account,
            clock=self.client,
        )
