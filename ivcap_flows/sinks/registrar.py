"""A run and its orders and jobs as model runs: what a mapping's entry says of them, registered as the task would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ivcap_flows.durable import Effect, Performed, perform
from ivcap_flows.handles import Artifact, Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.provena.models import TemplatedDataset
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.registration.flow_runs import (
    SOFTWARE,
    after_failures,
    artifact_on_record,
    run_inputs,
    run_outputs,
    run_record,
)
from ivcap_flows.registration.mapping import MappingEntry
from ivcap_flows.registration.model_runs import check_ended, model_run_effect, model_run_record
from ivcap_flows.registration.registry import ATTEMPTS_FIELD, SOFTWARE_FIELD, dataset_effect, person_of
from ivcap_flows.registration.work import inputs_of, outputs_of

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, OpenedAttempt
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Registrar"]

T = TypeVar("T")


@dataclass(frozen=True)
class Registrar:
    """Registers with one user's client, as part of an attempt. `graph` tells what is known of the artifacts."""

    client: ProvenaClient
    journal: Journal
    attempt: OpenedAttempt
    graph: Graph
    platform: str
    account: str

    async def register(
        self, work: Order | Job, entry: MappingEntry, earlier: Sequence[str] = ()
    ) -> Performed[ModelRun]:
        """The model run of succeeded work, and before it the datasets of its artifacts.

        `earlier` are the outcomes of what was asked for the same before and came to nothing. Raises InputError for what
        nobody has stated, RegistrationFailedError with Provena's reason.
        """
        check_ended(work)
        taken, made = inputs_of(work, entry), outputs_of(work, entry)
        known = [(template, artifact_on_record(urn, self.graph, work.platform)) for template, urn in taken]
        said = {SOFTWARE_FIELD: f"{work.service_name or work.service}, asked by {SOFTWARE}"}
        if earlier:
            said[ATTEMPTS_FIELD] = "; ".join([*(f"{n}: {each}" for n, each in enumerate(earlier, 1)), "then succeeded"])
        record = model_run_record(
            work,
            workflow_template=entry.workflow_template,
            modeller=await self._modeller(entry),
            inputs=await self._datasets(known, entry),
            outputs=await self._datasets(made, entry),
            annotations={**said, **entry.annotations},
            organisation=entry.organisation,
            study=entry.study,
        )
        named = record.model_copy(update={"display_name": record.display_name + after_failures(earlier)})
        return await self._perform(model_run_effect(work.urn, named, client=self.client, platform=self.platform))

    async def register_run(self, attempts: Sequence[AttemptRow], entry: MappingEntry) -> Performed[ModelRun]:
        """The model run of the completed run itself, and before it the datasets of its artifacts. Raises as above."""
        run = self.attempt.run
        taken, made = run_inputs(run, self.graph, entry), run_outputs(self.graph, entry)
        record = run_record(
            run,
            attempts,
            entry,
            modeller=await self._modeller(entry),
            inputs=await self._datasets(taken, entry),
            outputs=await self._datasets(made, entry),
        )
        subject = flows_urn("run", run.id)
        return await self._perform(model_run_effect(subject, record, client=self.client, platform=self.platform))

    async def _modeller(self, entry: MappingEntry) -> str:
        return entry.modeller or await person_of(self.client, self.account)

    async def _datasets(self, artifacts: Sequence[tuple[str, Artifact]], entry: MappingEntry) -> list[TemplatedDataset]:
        made = []
        for template, artifact in artifacts:
            effect = dataset_effect(
                artifact, entry.datasets, client=self.client, platform=self.platform, account=self.account
            )
            dataset = (await self._perform(effect)).value
            made.append(TemplatedDataset(dataset_template_id=template, dataset_id=dataset.urn))
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
