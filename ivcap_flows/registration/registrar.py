"""Register a run, and its orders and jobs, as model runs: as a workflow says, and as the task would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ivcap_flows.durable import Caller, Effect, Performed, perform
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.provena.models import Info, ModelRunRecord, TemplatedDataset
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.registration.flow_runs import artifact_on_record, run_record
from ivcap_flows.registration.keys import run_key
from ivcap_flows.registration.model_runs import ModelRunEffect, check_ended
from ivcap_flows.registration.registry import DatasetEffect, ItemEffect, person_of
from ivcap_flows.registration.requirements import ARTIFACT, Requirements
from ivcap_flows.registration.work import work_record
from ivcap_flows.registration.workflow import RegisteredWorkflow, Workflow

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, OpenedAttempt
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.provena.terms import Terms

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
    _registered: dict[int, RegisteredWorkflow] = field(default_factory=dict)
    """By the identity of the workflow."""

    async def register_work(
        self, work: Order | Job, workflow: Workflow, earlier: Sequence[str] = ()
    ) -> Performed[ModelRun]:
        """Register the model run of succeeded work, and before it the datasets of its artifacts.

        `earlier` are the outcomes of earlier requests for the same that failed. Raises InputError for facts that nobody
        has stated, and RegistrationFailedError with Provena's reason.
        """
        check_ended(work)
        known = await self._with_handles(workflow)
        record = work_record(work, known, modeller=await self._modeller(workflow), graph=self.graph, earlier=earlier)
        return await self._register(work.urn, record, known, work)

    async def register_run(self, attempts: Sequence[AttemptRow], workflow: Workflow) -> Performed[ModelRun]:
        """Register the model run of the completed run, and before it the datasets of its artifacts. Raises as above."""
        run, known = self.attempt.run, await self._with_handles(workflow)
        record = run_record(run, attempts, known, self.graph, modeller=await self._modeller(workflow))
        return await self._register(flows_urn("run", run.id), record, known)

    async def _with_handles(self, workflow: Workflow) -> RegisteredWorkflow:
        if id(workflow) not in self._registered:
            self._registered[id(workflow)] = await workflow.registered(self._item)
        return self._registered[id(workflow)]

    async def _item(self, info: Info) -> str:
        effect = ItemEffect.of(info, client=self.client, platform=self.platform, account=self.account)
        return (await self._perform(effect)).value.urn

    async def _register(
        self, subject: str, record: ModelRunRecord, workflow: RegisteredWorkflow, work: Order | Job | None = None
    ) -> Performed[ModelRun]:
        """Register the model run of a record in which artifacts stand for their datasets."""
        if not await self._is_done(subject, record):
            # A dataset cannot be deleted, so none is minted for a model run that would be refused.
            await self.requirements.check(record)
        inputs = await self._datasets(record.inputs, workflow.terms, work)
        outputs = await self._datasets(record.outputs, workflow.terms, work)
        whole = record.model_copy(update={"inputs": inputs, "outputs": outputs})
        return await self._perform(ModelRunEffect.of(subject, whole, client=self.client, platform=self.platform))

    async def _is_done(self, subject: str, record: ModelRunRecord) -> bool:
        key = run_key(self.platform, self.account, subject, record.workflow_template_id)
        intent = await self.journal.ask(self.journal.intents.newest, key)
        return intent is not None and intent.state == "done"

    async def _modeller(self, workflow: Workflow) -> str:
        return workflow.modeller or await person_of(self.client, self.account)

    async def _datasets(
        self, parts: Sequence[TemplatedDataset], terms: Terms | None, work: Order | Job | None
    ) -> list[TemplatedDataset]:
        products = {each.urn: each for each in work.products} if work is not None else {}
        platform = work.platform if work is not None else None
        made = []
        for part in parts:
            urn = part.dataset_id
            if urn.startswith(ARTIFACT):
                artifact = products.get(urn) or artifact_on_record(urn, self.graph, platform)
                effect = DatasetEffect.of(
                    artifact, terms, client=self.client, platform=self.platform, account=self.account
                )
                urn = (await self._perform(effect)).value.urn
            made.append(part.model_copy(update={"dataset_id": urn}))
        return made

    async def _perform(self, effect: Effect[T]) -> Performed[T]:
        caller = Caller(self.journal, self.attempt, self.platform, self.account, self.client)
        return await perform(effect, caller)
