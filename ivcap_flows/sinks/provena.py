"""Register the work of a run as model runs on Provena: as workflows say, and what a killed flow had requested.

Without a workflow nothing is sent, since a registration needs facts that no record of a run has (templates, licences,
people). What a task sent is looked up by its key and noted in the journal, so that the task finds it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import InDoubtError, WaitTimeoutError
from ivcap_flows.handles import Dataset, Handle, Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import OpenedAttempt
from ivcap_flows.loop import all_of
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.registration.batch import IN_FLIGHT
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.model_runs import adopt_sent_runs
from ivcap_flows.registration.references import References
from ivcap_flows.registration.registrar import Registrar
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.sinks.base import REFUSALS, TRIAL, Delivery, is_trial
from ivcap_flows.threads import JOURNAL

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal, RunRow
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.registration.workflow import Workflow

__all__ = ["ProvenaSink"]

_WORK: Final[dict[str, type[Order | Job]]] = {"order": Order, "job": Job}
_REGISTERED: Final[dict[str, type[Handle]]] = {"dataset": Dataset, NOUN: ModelRun}
PATIENCE: Final = 120.0
"""Seconds that one registration may take in a pass, beside the visibility delay, for which a lost reply is looked for.
The next pass continues it."""
_NAMED: Final = 5
"""The maximum number of refusals or keys that a reason names."""


class ProvenaSink:
    """Delivers with one user's client.

    A run for which there is no workflow, and that has no open registration, has nothing to deliver.
    """

    def __init__(
        self, client: ProvenaClient, journal: Journal, name: str = "provena", workflows: Workflows | None = None
    ) -> None:
        self._client = client
        self._journal = journal
        self._name = name
        self._workflows = workflows or Workflows(())

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Register what succeeded and has a workflow. Then look for what else was sent and not seen as lodged."""
        refusals, unsent = await self._register(run, graph)
        waiting, failed = await adopt_sent_runs(self._client, self._journal, run.id)
        facts = await self._new_facts(run, graph)
        refusals += [why for key, why in failed.items() if not any(key in refusal for refusal in refusals)]
        reason = _first_few(refusals, " ")
        if waiting:
            keys = _first_few(waiting, ", ")
            reason = f"{reason} Not visible on Provena yet: {keys}. Run the flow again to register them.".strip()
            return Delivery("pending", reason, facts)
        return Delivery("dead", reason, facts) if refusals else Delivery("delivered", unsent, facts)

    async def _register(self, run: RunRow, graph: Graph) -> tuple[list[str], str | None]:
        """Register the run and its orders and jobs, if they succeeded and have a workflow.

        Return the refusals, and the reason why nothing is registered although there is a workflow.
        """
        intents = await JOURNAL.run(self._work_intents, run, graph)
        succeeded = [intent for intent in intents if intent.state == "done" and intent.status == "succeeded"]
        work = [(intent, _WORK[intent.noun].model_validate(intent.outcome)) for intent in succeeded]
        chosen = [
            (intent, each, workflow)
            for intent, each in work
            if (workflow := self._workflows.for_work(each, run.flow_name)) is not None
        ]
        run_workflow = self._workflows.for_run(run.flow_name) if run.outcome == "completed" else None
        if not chosen and run_workflow is None:
            return [], None
        if await is_trial(graph, self._client.platform):
            return [], TRIAL
        attempts = await self._journal.ask(self._journal.runs.attempts, run.id)
        newest = max((row for row in attempts if row.leads), key=lambda row: row.number)
        attempt = OpenedAttempt(run, newest, joined=newest.number > 1)
        drafts = await Drafts.of(self._client, self._journal)
        with References() as references:
            watch = JobWatch(self._client)
            registrar = Registrar(self._client, self._journal, attempt, graph, drafts, references, watch)

            async def register(one: tuple[IntentRow, Order | Job, Workflow]) -> str | None:
                intent, each, workflow = one
                earlier = _earlier_failures(intent, intents)
                return await self._refusal(each.urn, registrar.register_work(each, workflow, earlier))

            refusals = await all_of(register, chosen, IN_FLIGHT)
            if run_workflow is not None:
                urn = flows_urn("run", run.id)
                refusals.append(await self._refusal(urn, registrar.register_run(attempts, run_workflow)))
        return [refusal for refusal in refusals if refusal is not None], None

    def _work_intents(self, run: RunRow, graph: Graph) -> list[IntentRow]:
        """Return the intents of the run's orders and jobs, and of ended ones on its record that another run requested.

        That run may have ended, and been delivered, before the order did.
        """
        intents = self._journal.intents
        own = [row for row in intents.where(run_id=run.id, limit=None) if row.noun in _WORK]
        others = {node.id for node in graph.nodes.values() if node.type in _WORK} - {row.urn for row in own}
        ended = (next((row for row in intents.where(urn=urn) if row.has_ended), None) for urn in sorted(others))
        return [*own, *(row for row in ended if row is not None)]

    async def _refusal(self, urn: str, registration: Coroutine[Any, Any, object]) -> str | None:
        """Wait for a registration, but not for ever. Return why it was refused, or None."""
        patience = PATIENCE + self._client.visibility_delay
        try:
            await asyncio.wait_for(registration, patience)
        except asyncio.TimeoutError as error:
            raise WaitTimeoutError(
                f"The registration of {urn} has not ended within {patience:g} s. The next sync continues.",
                pending=[urn],
            ) from error
        except (*REFUSALS, InDoubtError) as error:
            return f"{urn} is not registered. {error}"
        return None

    async def _new_facts(self, run: RunRow, graph: Graph) -> list[Record]:
        """Return the records of registrations that the run's record lacks, since no task of the run saw them done."""
        rows = await self._journal.ask(self._journal.intents.where, run_id=run.id, limit=None)
        new = [row for row in rows if row.noun in _REGISTERED and row.state == "done" and row.urn not in graph.nodes]
        return [record for row in new for record in describe(_REGISTERED[row.noun].model_validate(row.outcome))]


def _first_few(texts: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return separator.join(texts[:_NAMED]) + more


def _earlier_failures(intent: IntentRow, intents: Sequence[IntentRow]) -> list[str]:
    """Return how earlier requests for the same failed, oldest first."""
    earlier = [row for row in intents if row.base_key == intent.base_key and row.generation < intent.generation]
    return [row.status or row.state for row in sorted(earlier, key=lambda row: row.generation)]
