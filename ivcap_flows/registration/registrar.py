"""Register a run, and its orders and jobs, as model runs: as a workflow says, and as the task would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ivcap_flows.durable import Caller, Performed, perform
from ivcap_flows.handles import Artifact, Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.flow_runs import artifact_on_record, run_record
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.making import checked_effect
from ivcap_flows.registration.model_runs import check_ended
from ivcap_flows.registration.references import References
from ivcap_flows.registration.registry import Effects, person_of
from ivcap_flows.registration.requirements import Requirements
from ivcap_flows.registration.work import work_record
from ivcap_flows.registration.workflow import Workflow

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, OpenedAttempt
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.provena.terms import Terms

__all__ = ["Registrar"]


@dataclass(frozen=True)
class Registrar:
    """Registers with one user's client, as part of an attempt. Several may be registered at once.

    `graph` has what is known of the run. What the registry says of `references` is kept for all that is registered, and
    their jobs have one `job_watch`.
    """

    client: ProvenaClient
    journal: Journal
    attempt: OpenedAttempt
    graph: Graph
    drafts: Drafts
    references: References
    job_watch: JobWatch

    async def register_work(
        self, work: Order | Job, workflow: Workflow, earlier: Sequence[str] = ()
    ) -> Performed[ModelRun]:
        """Register the model run of succeeded work, and before it the datasets of its artifacts.

        `earlier` are the outcomes of earlier requests for the same that failed. Raises InputError for facts that nobody
        has stated, and RegistrationFailedError with Provena's reason.
        """
        check_ended(work)
        known = await workflow.registered(self.drafts.name)
        record = work_record(work, known, modeller=await self._modeller(workflow), graph=self.graph, earlier=earlier)
        return await self._register(work.urn, record, known.terms, work)

    async def register_run(self, attempts: Sequence[AttemptRow], workflow: Workflow) -> Performed[ModelRun]:
        """Register the model run of the completed run, and before it the datasets of its artifacts. Raises as above."""
        run, known = self.attempt.run, await workflow.registered(self.drafts.name)
        record = run_record(run, attempts, known, self.graph, modeller=await self._modeller(workflow))
        return await self._register(flows_urn("run", run.id), record, known.terms)

    async def _register(
        self, subject: str, record: ModelRunRecord, terms: Terms | None, work: Order | Job | None = None
    ) -> Performed[ModelRun]:
        """Register the model run of a record in which artifacts stand for their datasets."""
        products = {each.urn: each for each in work.products} if work is not None else {}
        platform = work.platform if work is not None else None

        async def describe(urn: str) -> Artifact:
            return products.get(urn) or artifact_on_record(urn, self.graph, platform)

        drafts = self.drafts
        caller = Caller(self.journal, self.attempt, drafts.platform, drafts.account, self.client)
        effects = Effects(caller, self.client)
        requirements = Requirements(drafts, self.references, terms=terms, describe=describe)
        effect = await checked_effect(
            subject,
            record,
            requirements,
            self.journal,
            register=effects.item,
            mint=effects.dataset,
            job_watch=self.job_watch,
        )
        return await perform(effect, caller)

    async def _modeller(self, workflow: Workflow) -> str:
        return workflow.modeller or await person_of(self.client, self.drafts.account)
