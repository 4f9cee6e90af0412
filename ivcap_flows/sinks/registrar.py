"""The work of one run as model runs: what a mapping's entry says of an order or job, registered as the task would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ivcap_flows.durable import Effect, Performed, perform
from ivcap_flows.handles import Artifact, Job, ModelRun, Order
from ivcap_flows.provena.models import TemplatedDataset
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.registration.mapping import MappingEntry
from ivcap_flows.registration.model_runs import check_ended, model_run_effect, model_run_record
from ivcap_flows.registration.registry import dataset_effect, person_of
from ivcap_flows.registration.work import inputs_of, outputs_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, OpenedAttempt
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

    async def register(self, work: Order | Job, entry: MappingEntry) -> Performed[ModelRun]:
        """The model run of succeeded work, and before it the datasets of its artifacts.

        Raises InputError for what nobody has stated, RegistrationFailedError with Provena's reason.
        """
        check_ended(work)
        taken, made = inputs_of(work, entry), outputs_of(work, entry)
        modeller = entry.modeller or await person_of(self.client, self.account)
        record = model_run_record(
            work,
            workflow_template=entry.workflow_template,
            modeller=modeller,
            inputs=[await self._dataset(template, self._known(urn, work), entry) for template, urn in taken],
            outputs=[await self._dataset(template, product, entry) for template, product in made],
            annotations=entry.annotations,
            organisation=entry.organisation,
            study=entry.study,
        )
        return await self._perform(model_run_effect(work.urn, record, client=self.client, platform=self.platform))

    async def _dataset(self, template: str, artifact: Artifact, entry: MappingEntry) -> TemplatedDataset:
        effect = dataset_effect(
            artifact, entry.datasets, client=self.client, platform=self.platform, account=self.account
        )
        dataset = (await self._perform(effect)).value
        return TemplatedDataset(dataset_template_id=template, dataset_id=dataset.urn)

    def _known(self, urn: str, work: Order | Job) -> Artifact:
        """The artifact as the run has recorded it; of one that it only named, the URN."""
        record = self.graph.nodes.get(urn)
        facts: dict[str, Any] = record.attributes if record is not None else {}
        return Artifact(
            urn=urn,
            platform=work.platform,
            name=facts.get("name"),
            media_type=facts.get("media_type"),
            created_at=record.time if record is not None else None,
        )

    async def _perform(self, effect: Effect[T]) -> Performed[T]:
        return await perform(
            effect, journal=self.journal, attempt=self.attempt, platform=self.platform, account=self.account
        )
