"""What a run has done, as model runs on Provena: those that a mapping names, and those that a killed flow asked for.

Without a mapping nothing is sent: a registration needs what no record of a run knows (templates, licences, people).
What a task did send is looked for under its key and noted in the journal, so that the task finds it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import WaitTimeoutError
from ivcap_flows.handles import Dataset, Handle, Job, ModelRun, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import NewIntent, OpenedAttempt
from ivcap_flows.journal.states import DONE
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.registration.keys import NOUN
from ivcap_flows.registration.mapping import ModelRunMapping
from ivcap_flows.registration.model_runs import jobs_with_key, model_run_handle
from ivcap_flows.sinks.base import REFUSALS, Delivery, is_trial
from ivcap_flows.sinks.registrar import Registrar

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal, RunRow
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.provena.runs import JobRow

__all__ = ["ProvenaSink"]

_SENT: Final = ("sent", "in_doubt")
_WORK: Final[dict[str, type[Order | Job]]] = {"order": Order, "job": Job}
_MADE: Final[dict[str, type[Handle]]] = {"dataset": Dataset, NOUN: ModelRun}
_PATIENCE: Final = 120.0
"""Seconds that one registration may hold a pass; the next pass goes on with it."""


class ProvenaSink:
    """Delivers with one user's client. A run of which the mapping names nothing, and that has no open registration, has
    nothing to deliver."""

    def __init__(
        self, client: ProvenaClient, journal: Journal, name: str = "provena", mapping: ModelRunMapping | None = None
    ) -> None:
        self._client = client
        self._journal = journal
        self._name = name
        self._mapping = mapping or ModelRunMapping(())

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, run: RunRow, graph: Graph) -> Delivery:
        """Register what succeeded and is in the mapping; then look for what else was sent and not seen lodged."""
        refused = await self._register(run, graph)
        waiting = [intent.key for intent in await self._intents(run) if not await self._settled(intent)]
        facts = await self._unstated(run, graph)
        if waiting:
            keys = ", ".join(waiting)
            told = f"Not seen on Provena yet: {keys}. Run the flow again to register."
            return Delivery("pending", " ".join([*refused, told]), facts)
        return Delivery("dead", " ".join(refused), facts) if refused else Delivery("delivered", facts=facts)

    async def _register(self, run: RunRow, graph: Graph) -> list[str]:
        """Register the run, and each order and job, that has succeeded and is in the mapping; why those that were
        refused were."""
        asked = await self._intents(run, _WORK)
        done = [
            (intent, _WORK[intent.noun].model_validate(intent.outcome))
            for intent in asked
            if intent.state == "terminal" and intent.status == "succeeded"
        ]
        mapped = [
            (intent, work, entry)
            for intent, work in done
            if (entry := self._mapping.entry_for(work, run.flow_name)) is not None
        ]
        whole = self._mapping.entry_for_run(run.flow_name) if run.outcome == "completed" else None
        if not (mapped or whole) or await is_trial(graph, self._client.platform):
            return []
        attempts = await asyncio.to_thread(self._journal.runs.attempts, run.id)
        newest = max((row for row in attempts if row.leads), key=lambda row: row.number)
        attempt = OpenedAttempt(run, newest, joined=newest.number > 1)
        platform, account = await self._client.platform(), await self._client.username()
        registrar = Registrar(self._client, self._journal, attempt, graph, platform, account)
        refused = [
            await _refusal(work.urn, registrar.register(work, entry, _before(intent, asked)))
            for intent, work, entry in mapped
        ]
        if whole is not None:
            refused.append(await _refusal(flows_urn("run", run.id), registrar.register_run(attempts, whole)))
        return [said for said in refused if said is not None]

    async def _intents(self, run: RunRow, nouns: Sequence[str] | dict[str, Any] = (NOUN,)) -> list[IntentRow]:
        rows = await asyncio.to_thread(self._journal.intents.where, run_id=run.id, limit=None)
        return [row for row in rows if row.noun in nouns]

    async def _unstated(self, run: RunRow, graph: Graph) -> list[Record]:
        """What the run's registrations state and its record does not: no task of the run saw them done."""
        made = [row for row in await self._intents(run, _MADE) if row.state in DONE and row.urn not in graph.nodes]
        return [record for row in made for record in describe(_MADE[row.noun].model_validate(row.outcome))]

    async def _settled(self, intent: IntentRow) -> bool:
        """Whether nothing is left to do for an intent: it was never sent, is done, or was found just now."""
        if intent.state not in _SENT:
            return True
        platform = await self._client.platform()
        if intent.platform != platform:
            return True
        row = await self._job_of(intent)
        run = row.lodged if row is not None else None
        if row is None or run is None:
            return False
        request: Any = intent.request
        record = run.record or row.record
        handle = model_run_handle(run.id, record, request, session_id=row.session_id, platform=platform, key=intent.key)
        return await asyncio.to_thread(self._adopt, intent, run.id, handle.model_dump(mode="json"))

    def _adopt(self, intent: IntentRow, urn: str, outcome: Any) -> bool:
        """Note what was found, unless a live process is at the intent and will see the same."""
        shared = {field.name for field in fields(NewIntent)} & vars(intent).keys()
        wanted = NewIntent(**{name: getattr(intent, name) for name in shared}, attempt_number=intent.asked_attempt)
        claim = self._journal.intents.claim(wanted)
        if claim.kind == "doubt":
            self._journal.intents.settle_outcome(
                claim.intent, urn=urn, outcome=outcome, how="adopted", matched_by="key"
            )
        elif claim.kind == "new":
            self._journal.intents.release(claim.intent)
        return claim.kind in ("doubt", "kept")

    async def _job_of(self, intent: IntentRow) -> JobRow | None:
        """The job that the intent was sent as: by the session that was kept, else by its key in the user's jobs."""
        kept: Any = intent.progress
        if isinstance(kept, dict) and kept.get("session_id"):
            return await self._client.jobs.fetch(kept["session_id"])
        async for row in jobs_with_key(self._client, intent):
            return row
        return None


async def _refusal(urn: str, registration: Coroutine[Any, Any, object]) -> str | None:
    """Wait for a registration, but not for ever; why it was refused."""
    try:
        await asyncio.wait_for(registration, _PATIENCE)
    except asyncio.TimeoutError as error:
        raise WaitTimeoutError(
            f"The registration of {urn} has not ended within {_PATIENCE:g} s; the next sync goes on.", pending=[urn]
        ) from error
    except REFUSALS as error:
        return f"{urn} is not registered. {error}"
    return None


def _before(intent: IntentRow, asked: Sequence[IntentRow]) -> list[str]:
    """How what was asked for the same before came to nothing, oldest first."""
    earlier = [row for row in asked if row.base_key == intent.base_key and row.generation < intent.generation]
    return [row.status or row.state for row in sorted(earlier, key=lambda row: row.generation)]
